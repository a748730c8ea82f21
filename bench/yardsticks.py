"""The contenders: simpler programs for the same stream and the same listing.

`python -m bench.yardsticks KIND URL COUNT`, with KIND one of

- `receive`: reads and decodes, writes nothing. The limit.
- `update_or_create`: Django's, one message at a time, as in tutorials.
- `prototype`: a reader, a queue and a thread that commits the queue in the database's fastest way: on SQLite an upsert
  by `executemany`, on PostgreSQL a COPY into a temporary table and a merge. It applies every message as it comes: no
  checks, no order of times, no feed, no search, no lease, no dead letters.
- `fetch`: reads a listing page by page and upserts each page the same way.

It prints JSON lines: when it is ready, then each commit with the number of messages up to it.
"""

import asyncio
import json
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import msgspec
from django.db import connection, transaction
from websockets.asyncio.client import ClientConnection, connect

from bench.market import TOKEN
from bench.plain import COLUMNS, PlainSkill

Commits = list[tuple[int, int]]
_MOST_A_BATCH = 1000
_encode = msgspec.json.Encoder().encode
_JSON = frozenset(("python_packages", "npm_packages", "tags", "metadata"))


async def stream(kind: str, url: str, count: int) -> Commits:
    async with connect(f"{url}?token={TOKEN}", compression=None, max_size=2**21, ping_interval=None) as socket:
        reply(ready=True)
        match kind:
            case "receive":
                return await receive(socket, count)
            case "update_or_create":
                return await update_or_create(socket, count)
            case _:
                return await prototype(socket, count)


async def receive(socket: ClientConnection, count: int) -> Commits:
    async for _ in skills(socket, count):
        pass
    return [(time.monotonic_ns(), count)]


async def update_or_create(socket: ClientConnection, count: int) -> Commits:
    commits: Commits = []
    async for skill in skills(socket, count):
        await PlainSkill.objects.aupdate_or_create(
            skill_id=skill["skill_id"], defaults={name: skill[name] for name in COLUMNS if name != "skill_id"}
        )
        commits.append((time.monotonic_ns(), len(commits) + 1))
    return commits


async def prototype(socket: ClientConnection, count: int) -> Commits:
    queued: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    commits: Commits = []

    def write() -> None:
        done = 0
        upsert = writer()
        while done < count:
            batch = [queued.get()]
            while len(batch) < _MOST_A_BATCH:
                try:
                    batch.append(queued.get_nowait())
                except queue.Empty:
                    break
            upsert(batch)
            done += len(batch)
            commits.append((time.monotonic_ns(), done))

    writing = threading.Thread(target=write)
    writing.start()
    async for skill in skills(socket, count):
        queued.put(skill)
    await asyncio.to_thread(writing.join)
    return commits


async def skills(socket: ClientConnection, count: int) -> Any:
    """Read the next `count` skills of the stream, and answer heartbeats."""
    decode = msgspec.json.decode
    while count:
        message = decode(await socket.recv())
        if message["type"] == "ping":
            await socket.send('{"type":"pong"}')
            continue
        count -= 1
        yield message["data"]


def fetch(url: str, page_size: int) -> Commits:
    upsert = writer()
    commits: Commits = []
    done = 0
    with httpx2.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        reply(ready=True)
        page, pages = 1, 1
        while page <= pages:
            answer = http.get(f"{url}/api/v1/skills", params={"page": page, "page_size": page_size})
            body = msgspec.json.decode(answer.raise_for_status().content)
            upsert(body["skills"])
            pages = body["total_pages"]
            page += 1
            done += len(body["skills"])
            commits.append((time.monotonic_ns(), done))
    return commits


def writer() -> Callable[[Sequence[dict[str, Any]]], None]:
    """Return the fastest function that upserts skills into the plain table; each call is one transaction."""
    names = ", ".join(COLUMNS)
    changes = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name != "skill_id")
    merge = f"ON CONFLICT (skill_id) DO UPDATE SET {changes} WHERE excluded.updated_at >= {{table}}.updated_at"
    table = PlainSkill._meta.db_table

    def row(skill: dict[str, Any]) -> list[Any]:
        return [_encode(skill[name]).decode() if name in _JSON else skill[name] for name in COLUMNS]

    def sqlite(batch: Sequence[dict[str, Any]]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            values = ", ".join(["%s"] * len(COLUMNS))
            cursor.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({values}) {merge.format(table=table)}",
                [row(skill) for skill in batch],
            )

    def postgres(batch: Sequence[dict[str, Any]]) -> None:
        # One statement can't write a row twice: the last of each counts.
        newest = {skill["skill_id"]: skill for skill in batch}
        with transaction.atomic(), connection.cursor() as cursor:
            with cursor.copy(f"COPY arrived ({names}) FROM STDIN") as copy:
                for skill in newest.values():
                    copy.write_row(row(skill))
            cursor.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM arrived {merge.format(table=table)}")

    connection.ensure_connection()
    if connection.vendor == "sqlite":
        return sqlite
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE arrived (LIKE {table}) ON COMMIT DELETE ROWS")
        cursor.execute("ALTER TABLE arrived DROP COLUMN id")
    return postgres


def reply(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _kind, _url, _count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    _began = time.monotonic_ns()
    _commits = fetch(_url, _count) if _kind == "fetch" else asyncio.run(stream(_kind, _url, _count))
    _used = resource.getrusage(resource.RUSAGE_SELF)
    reply(commits=_commits, began=_began, cpu=_used.ru_utime + _used.ru_stime)
