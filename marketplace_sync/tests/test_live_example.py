"""The example in `docs/`: it follows the feed over the WebSocket, and keeps its place when it is killed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marketplace_sync.mirror.retention import forget_changes
from marketplace_sync.tests.live_feed import PATH, agent_key, ask, new_pen, put, until, web
from marketplace_sync.tests.processes import MANAGE, Program

pytestmark = pytest.mark.django_db(transaction=True)

EXAMPLE = MANAGE.parent / "docs" / "follow.py"


@contextmanager
def following(port: int, key: str, place: Path) -> Iterator[Program]:
    command = [sys.executable, str(EXAMPLE), f"ws://127.0.0.1:{port}{PATH}", str(place)]
    program = Program(command, {**os.environ, "MIRROR_KEY": key}, place.parent)
    try:
        yield program
    finally:
        program.end()


def numbers(program: Program) -> list[int]:
    return [int(line.split()[0]) for line in program.out.splitlines()]


async def test_it_is_killed_and_started_again_and_misses_nothing(tmp_path: Path) -> None:
    key, pen, place = await ask(agent_key), await ask(new_pen), tmp_path / "place.txt"
    await ask(pen.write, put("s1"), put("s2"))
    async with web() as server:
        with following(server.port, key, place) as program:
            await until(lambda: place.exists() and place.read_text() == "2", "it has handled two")
            await ask(pen.write, put("s3"))
            await until(lambda: place.read_text() == "3", "it has handled three")
            assert numbers(program) == [1, 2, 3]
            program.kill()
        await ask(pen.write, put("s4"), put("s5"))
        with following(server.port, key, place) as program:
            await until(lambda: place.read_text() == "5", "it has handled five")
            assert numbers(program) == [4, 5]


async def test_it_comes_back_when_the_server_does(tmp_path: Path) -> None:
    key, pen, place = await ask(agent_key), await ask(new_pen), tmp_path / "place.txt"
    await ask(pen.write, put("s1"))
    async with web() as server:
        port = server.port
        with following(port, key, place):
            await until(lambda: place.exists() and place.read_text() == "1", "it has handled one")
    await ask(pen.write, put("s2"))
    with following(port, key, place) as running:
        await running.says("lost: .*coming back")
        async with web(port=port):
            await until(lambda: place.read_text() == "2", "it has handled two")
            assert numbers(running) == [2]


async def test_it_says_when_it_has_to_list_anew(tmp_path: Path) -> None:
    key, pen, place = await ask(agent_key), await ask(new_pen), tmp_path / "place.txt"
    await ask(pen.write, *[put(f"s{number}") for number in range(8)])
    await ask(forget_changes, pen.lease, keep_days=30, keep_rows=3)
    place.write_text("2")
    async with web() as server:
        with following(server.port, key, place) as program:
            ended = await program.ended()
    assert (ended.status, ended.err) == (1, "4410: 2 is older than what is kept; list anew\n")
