"""`manage.py demo`: everything at once, and nothing left of it."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

import httpx2
import pytest

from marketplace_sync.demo import SKILLS
from marketplace_sync.tests.processes import Environment, Program, alive, children_of, programs, until

pytestmark = pytest.mark.django_db(transaction=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def all_gone(children: Iterable[int]) -> None:
    await until(lambda: not any(map(alive, children)), "all of its processes are gone", 5)


async def web_answers(demo: Program, port: int) -> int:
    """The status of the login page, once there is one."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as browser:
        while True:
            try:
                return (await browser.get(f"http://127.0.0.1:{port}/admin/login/")).status_code
            except httpx2.TransportError:
                assert demo.running
                await asyncio.sleep(0.05)


async def test_the_mirror_fills_changes_arrive_and_ctrl_c_ends_all_of_it(
    program_environment: Environment, tmp_path: Path
) -> None:
    port = free_port()
    with programs(program_environment()) as start:
        # From anywhere: the paths are not those of whoever calls.
        demo = start.start("demo", "--port", str(port), folder=tmp_path)
        said = await demo.says(rf"Web +http://127\.0\.0\.1:{port}/admin/ +user admin, password (\S+)")
        assert said[1]
        await demo.says(r"Mirror +live: (29|30)\d skills, \d+ categories")
        await demo.says(r"\d\d:\d\d:\d\d  (skill|rating|category)_\w+ +\S")
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


async def test_the_death_of_one_process_ends_all_of_them_and_is_told(program_environment: Environment) -> None:
    with programs(program_environment()) as start:
        demo = start.start("demo", "--port", "0")
        await demo.says("lease_taken")
        children = children_of(demo.pid)
        os.kill(next(child for child, command in children.items() if "runsync" in command), signal.SIGKILL)
        ended = await demo.ended()
        assert ended.status == 1
        assert "the daemon has ended with status -9" in ended.err
        await all_gone(children)


async def test_a_kill_of_the_demo_itself_leaves_none_of_its_processes(program_environment: Environment) -> None:
    with programs(program_environment()) as start:
        demo = start.start("demo", "--port", "0")
        await demo.says("lease_taken")
        children = children_of(demo.pid)
        assert len(children) >= 3
        demo.kill()
        await until(lambda: not any(map(alive, children)), "all of its processes are gone", 15)


async def test_a_configured_marketplace_is_not_mixed_with_the_simulated_one(program_environment: Environment) -> None:
    with programs(program_environment(ATOM_SAAS_API_URL="https://market.example")) as start:
        refused = await start.run("demo")
        assert refused.status == 1
        assert refused.err.startswith("CommandError: ATOM_SAAS_API_URL is set: ")
