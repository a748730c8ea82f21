"""The memory of a large body goes back to the system when the body is freed (`daemon.memory`)."""

import platform
import subprocess
import sys

import pytest

from marketplace_sync.tests.support.processes import MANAGE

# After a body of 24 MiB, glibc would by default keep the memory of smaller ones. Prints the MiB in memory while a body
# of 20 MiB exists, and when it is freed.
_PROGRAM = """
from marketplace_sync.daemon.memory import keep_small

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

keep_small()
before = resident()
for size in (24, 20):
    body = b"x" * (size * 2**20)
    during = resident()
    del body
print(during - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these limits")
def test_the_memory_of_a_large_body_is_returned_even_after_a_larger_one() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=MANAGE.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    during, after = map(float, printed.stdout.split())
    assert during > 15
    assert after < 5
