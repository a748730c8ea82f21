"""What a large body took goes back to the system when it is done with (`daemon.memory`)."""

import platform
import subprocess
import sys

import pytest

from marketplace_sync.tests.support.processes import MANAGE

# A body of 24 MiB comes and goes, after which glibc, unless it is told, would keep what smaller ones leave. MiB in
# memory while one of 20 is there, and when it is gone.
_PROGRAM = """
from marketplace_sync.daemon.memory import keep_small

def resident():
    with open("/proc/self/status") as told:
        return next(int(line.split()[1]) / 1024 for line in told if line.startswith("VmRSS"))

keep_small()
before = resident()
for size in (24, 20):
    body = b"x" * (size * 2**20)
    during = resident()
    del body
print(during - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is not told anything")
def test_a_large_body_is_given_back_also_after_a_larger_one() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=MANAGE.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    during, after = map(float, said.stdout.split())
    assert during > 15
    assert after < 5
