"""The memory of the daemon, whatever the marketplace answers."""

import asyncio
import functools
import gzip
import re
import sys
from collections.abc import Callable

import pytest

from marketplace_sync.tests.database.test_hostile_marketplace import SMALL, Reply, hostile, no_categories
from marketplace_sync.tests.support.harness import TOKEN
from marketplace_sync.tests.support.processes import MANAGE, Environment
from marketplace_sync.tests.support.upstream_peers import answer
from marketplace_sync.upstream import market as upstream_market

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_market, "RETRY_DELAYS", (0.0, 0.0, 0.0))


# Memory, of a process of its own.

BODY_LIMIT = 24 * 2**20
# What the interpreter, Django and both libraries need, the bodies that are under way together, and one decoded body:
# measured 106 MiB for the bomb, 107 for small things, 290 for large pages, 370 for a million categories.
MOST_MIB = 450
# Runs a program and prints its peak memory. A program inherits the peak of its parent, so
# that parent must not be the process of the tests.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> (20 if sys.platform == "darwin" else 10)
print(f"ended with {status}, had {most} MiB")
"""


def swollen(page: int) -> bytes:
    """Pages without end, each as large as it may be."""
    rows = b",".join(b'{"skill_id":"%d-%d","name":"N","code":"%s"}' % (page, n, b"c" * 2**20) for n in range(20))
    return answer(200, b'{"total_pages":1000000000,"skills":[' + rows + b"]}")


def made_once(make: Callable[[], bytes]) -> Reply:
    """Return the same answer to every request, made at the first one."""
    made = functools.cache(make)
    return lambda _: made()


ATTACKS: dict[str, tuple[Reply, Reply, str]] = {
    "a bomb": (
        made_once(lambda: answer(200, gzip.compress(b" " * 2**28, 1), "Content-Encoding: gzip")), no_categories,
        "the body is larger than",
    ),
    "a million categories": (
        lambda _: SMALL,
        made_once(lambda: answer(200, b"[" + b",".join(b'{"name":"%d"}' % n for n in range(1_000_000)) + b"]")),
        "1,000,000 rows in one answer; at most 100,000",
    ),
    "millions of small things": (
        made_once(lambda: answer(200, b'[{"id":1,"name":"N","x":[' + b",".join([b'{"a":[{}]}'] * 2_000_000) + b"]}]")),
        no_categories, "more than 3,000,000 commas and brackets",
    ),
    "large pages without end": (swollen, no_categories, "the listing has more than 5 pages"),
}  # fmt: skip


@pytest.mark.usefixtures("sqlite")  # refused before any database sees it, or bounded by the size of a page
@pytest.mark.parametrize("name", ATTACKS)
async def test_no_answer_makes_the_daemon_exceed_its_memory(name: str, program_environment: Environment) -> None:
    skills, categories, reason = ATTACKS[name]
    async with hostile(skills, categories) as server:
        environment = program_environment(
            ATOM_SAAS_API_URL=server.url, ATOM_SAAS_API_TOKEN=TOKEN, ATOM_SAAS_API_REQUESTS_PER_MINUTE=0,
            ATOM_SAAS_API_MAX_BODY_BYTES=BODY_LIMIT, ATOM_SAAS_MAX_PAGES=5,
        )  # fmt: skip
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MEASURE, sys.executable, str(MANAGE), "runsync", "--once",
            env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output = (await program.communicate())[0].decode()
    assert reason in output
    assert "Traceback" not in output
    found = re.search(r"had (\d+) MiB", output)
    assert found and int(found[1]) < MOST_MIB, output
