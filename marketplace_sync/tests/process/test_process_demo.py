"""`manage.py demo`: it starts the whole system, and leaves no process behind."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

import httpx2
import pytest

from marketplace_sync.demo import SKILLS, STOP_SECONDS
from marketplace_sync.tests.support.processes import MANAGE, Environment, Program, alive, children_of, programs, until

pytestmark = pytest.mark.django_db(transaction=True)
# How its processes end does not depend on the database.
on_sqlite = pytest.mark.usefixtures("sqlite")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def all_gone(children: Iterable[int]) -> None:
    await until(lambda: not any(map(alive, children)), "all of its processes are gone", 5)


async def web_answers(demo: Program, port: int) -> int:
    """Return the status of the login page, once the web server answers."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as browser:
        while True:
            try:
                return (await browser.get(f"http://127.0.0.1:{port}/admin/login/")).status_code
            except httpx2.TransportError:
                assert demo.running
                await asyncio.sleep(0.05)


async def test_demo_fills_the_mirror_and_ctrl_c_stops_everything(
    program_environment: Environment, tmp_path: Path
) -> None:
    port = free_port()
    # A terminal that cannot show all characters.
    with programs(program_environment(PYTHONIOENCODING="ascii", TMPDIR=tmp_path)) as start:
        # In another folder: the demo's paths do not depend on it.
        demo = start.start("demo", "--port", str(port), folder=tmp_path)
        address = await demo.prints(rf"Web +http://127\.0\.0\.1:{port}/admin/ +user admin, password (\S+)")
        assert address[1]
        await demo.prints(r"Mirror +live: (29|30)\d skills, \d+ categories")
        await demo.prints(r"\d\d:\d\d:\d\d  (skill|rating|category)_\w+ +\S")
        async with asyncio.timeout(30):
            assert await web_answers(demo, port) == 200
        children = children_of(demo.pid)
        assert len(children) >= 3
        demo.send(signal.SIGINT)
        ended = await demo.ended()
        assert ended.status == 0, ended.err
        assert ended.out.endswith("Stopped.\n")
        assert "Traceback" not in ended.out + ended.err
        await all_gone(children)
        assert f"simulated, {SKILLS} skills" in ended.out
        # The address comes after the output of the start; single requests are not printed.
        assert ended.out.index("Mirror   live") < ended.out.index("Web ") < ended.out.index("Agent ")
        assert "GET /admin/login/" not in ended.out + ended.err and ended.err == ""
        assert f"Log      {tmp_path}/mirror-demo-" in ended.out and logs(tmp_path) == []
        assert_matches_the_readme(ended.out)


def logs(folder: Path) -> list[Path]:
    return list(folder.glob("mirror-demo-*.log"))


def assert_matches_the_readme(out: str) -> None:
    """Compare the README's sample with a real demo, without numbers, names and states that may be too short to show."""

    def form(line: str) -> str:
        line = re.sub(r"^Database .*;", "Database ...;", line)  # a file, or a server's database
        line = re.sub(r"(?<=password )\S+|(?<=key )\S+|(?<=file )\S+|(?<=Log      )\S+", "...", line)
        if change := re.match(r"  \d\d:\d\d:\d\d  \w+", line):
            return f"  {len(change[0].split())} words of a change"
        return re.sub(r"\d+", "0", re.sub(r"(not_running|connecting|catching_up): .*", "...", line))

    sample = (MANAGE.parent / "README.md").read_text().split("```console\nDatabase", 1)[1].split("```")[0]
    shown = {form(line) for line in f"Database{sample}".splitlines()}
    real = {form(line) for line in out.splitlines()} - {form(line) for line in out.splitlines()[-2:]}
    assert shown - real == set()
    assert {line for line in real - shown if not line.startswith("Port")} == set()


@on_sqlite
async def test_death_of_one_process_ends_the_demo_with_its_name(
    program_environment: Environment, tmp_path: Path
) -> None:
    with programs(program_environment(TMPDIR=tmp_path)) as start, socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        demo = start.start("demo", "--port", str(busy))
        await demo.prints(f"Port {busy} is in use by another program. The demo's web server uses port")
        await demo.prints("Mirror +not_running")
        children = children_of(demo.pid)
        os.kill(next(child for child, command in children.items() if "runsync" in command), signal.SIGKILL)
        ended = await demo.ended()
        assert ended.status == 1
        assert "the daemon has ended with status -9" in ended.err
        (log,) = logs(tmp_path)
        assert f"the log {log} ends with:" in ended.err
        await all_gone(children)


@on_sqlite
async def test_second_ctrl_c_kills_processes_that_do_not_stop(program_environment: Environment, tmp_path: Path) -> None:
    with programs(program_environment(TMPDIR=tmp_path)) as start:
        demo = start.start("demo", "--port", "0")
        await demo.prints("Mirror +not_running")
        children = children_of(demo.pid)
        for child in children:
            os.kill(child, signal.SIGSTOP)  # the first Ctrl-C does not reach it
        demo.send(signal.SIGINT)
        await demo.prints("Stopping. Press Ctrl-C again to kill all processes")
        demo.send(signal.SIGINT)
        ended = await demo.ended(STOP_SECONDS / 2)
        assert ended.out.endswith("Stopped.\n")
        await all_gone(children)


@on_sqlite
async def test_killed_demo_leaves_no_process(program_environment: Environment, tmp_path: Path) -> None:
    with programs(program_environment(TMPDIR=tmp_path)) as start:
        demo = start.start("demo", "--port", "0")
        await demo.prints("Mirror +not_running")
        children = children_of(demo.pid)
        assert len(children) >= 3
        demo.kill()
        await until(lambda: not any(map(alive, children)), "all of its processes are gone", 15)


@on_sqlite
async def test_demo_refuses_a_configured_marketplace(program_environment: Environment) -> None:
    with programs(program_environment(ATOM_SAAS_API_URL="https://market.example")) as start:
        result = await start.run("demo")
        assert result.status == 1
        assert result.err.startswith("CommandError: ATOM_SAAS_API_URL is set: ")
