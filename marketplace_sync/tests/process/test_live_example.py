"""The example in `docs/`: it lists by cursor, follows the feed over the WebSocket, and keeps its place when killed."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.asgi import get_asgi_application

from marketplace_sync.mirror.retention import forget_changes
from marketplace_sync.models import Category, Skill
from marketplace_sync.tests.support.live_feed import PATH, agent_key, ask, category, new_pen, put, remove, until, web
from marketplace_sync.tests.support.processes import MANAGE, Program

# What is tested here does not depend on the database; its queries are tested on both by other tests.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sqlite")]

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


def copied(program: Program) -> set[tuple[str, str]]:
    """Return the copy that a reader of the program's output would have."""
    copy = set()
    for line in program.out.splitlines():
        _, what, key = line.split(maxsplit=2)
        key = json.loads(key)
        kind, _, change = what.partition("_")
        if change == "deleted":
            copy.discard((kind, key))
        elif change in ("", "created"):
            copy.add((kind, key))
    return copy


def mirror_now() -> set[tuple[str, str]]:
    return {("skill", key) for key in Skill.objects.values_list("skill_id", flat=True)} | {
        ("category", name) for name in Category.objects.values_list("name", flat=True)
    }


async def test_example_lists_by_cursor_during_changes_and_equals_the_mirror(tmp_path: Path) -> None:
    key, pen, place = await ask(agent_key), await ask(new_pen), tmp_path / "place.txt"
    await ask(pen.write, *[put(f"s{number:04}", category=f"c{number % 20:02}") for number in range(1600)])
    pages: list[str] = []

    async def changing(scope: Any, receive: Any, send: Any) -> None:
        """Change what was listed already, what is listed next and what is not there yet; then serve the page."""
        number = len(pages)
        pages.append(scope["query_string"].decode())
        edits = [remove(f"s{number * 7 + one:04}") for one in range(10)]
        edits += [put(f"s{number * 7 + one:04}") for one in range(0, 10, 3)]
        edits += [remove(f"s{1599 - number * 3:04}"), put(f"new-{number}", category=f"new-{number}")]
        await ask(pen.write, *edits[: len(edits) // 2])
        await ask(pen.write, *edits[len(edits) // 2 :], category(f"c{number:02}", description="changed"))
        await serve(scope, receive, send)

    serve = get_asgi_application()
    async with web(http=changing) as server:
        with following(server.port, key, place) as program:
            await until(place.exists, "it has listed everything")
            newest = await ask(pen.write, put("last"))
            await until(lambda: place.read_text() == str(newest), "it has handled everything")
            assert copied(program) == await ask(mirror_now)
    assert len(pages) == 5 and all("cursor=" in page for page in pages)


async def test_killed_example_misses_nothing_after_a_restart(tmp_path: Path) -> None:
    key, pen, place = await ask(agent_key), await ask(new_pen), tmp_path / "place.txt"
    await ask(pen.write, put("s1"), put("s2"))
    place.write_text("0")
    async with web() as server:
        with following(server.port, key, place) as program:
            await until(lambda: place.read_text() == "2", "it has handled two")
            await ask(pen.write, put("s3"))
            await until(lambda: place.read_text() == "3", "it has handled three")
            assert numbers(program) == [1, 2, 3]
            program.kill()
        await ask(pen.write, put("s4"), put("s5"))
        with following(server.port, key, place) as program:
            await until(lambda: place.read_text() == "5", "it has handled five")
            assert numbers(program) == [4, 5]


async def test_example_reconnects_when_the_server_is_back(tmp_path: Path) -> None:
    key, pen, place = await ask(agent_key), await ask(new_pen), tmp_path / "place.txt"
    await ask(pen.write, put("s1"))
    place.write_text("0")
    async with web() as server:
        port = server.port
        with following(port, key, place):
            await until(lambda: place.read_text() == "1", "it has handled one")
    await ask(pen.write, put("s2"))
    with following(port, key, place) as running:
        await running.prints("lost: .*coming back")
        async with web(port=port):
            await until(lambda: place.read_text() == "2", "it has handled two")
            assert numbers(running) == [2]


async def test_example_exits_when_it_has_to_list_again(tmp_path: Path) -> None:
    key, pen, place = await ask(agent_key), await ask(new_pen), tmp_path / "place.txt"
    await ask(pen.write, *[put(f"s{number}") for number in range(8)])
    await ask(forget_changes, pen.lease, keep_days=30, keep_rows=3)
    place.write_text("2")
    async with web() as server:
        with following(server.port, key, place) as program:
            ended = await program.ended()
    assert (ended.status, ended.err) == (1, "4410: 2 is older than what is kept; list the catalogue again\n")
