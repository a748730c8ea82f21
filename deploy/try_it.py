# ruff: noqa: T201
"""The whole service on this machine, each part killed in turn while its page and its feed are watched.

    python deploy/try_it.py [--replay trace.jsonl.gz] [--rate 90] [--postgres URL] [--redis URL]

PostgreSQL and Redis have to run; the rest are real processes that this starts: two web processes, two daemons, the
simulated marketplace and a relay in front of it. A database of its own is made, and dropped at the end. About two
minutes. Exit 1 when a guarantee is violated: a change lost or sent twice, a copy that differs, a page unreachable.
"""

import argparse
import asyncio
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from try_it_watch import FeedClient, Visits, table
from try_it_world import Child, World, free_port, made_up_history, part_of_history

# A supervisor's RestartSec.
RESTART_AFTER = 1.0
# What is promised: a standby takes over when the lease of 10 s is over, and has to connect and list then.
LONGEST_TAKEOVER = 30.0
LONGEST_PAGE_GAP = 3.0
AWAY_SECONDS = 5.0
PATIENCE = 90.0


class TrialError(Exception):
    """A guarantee is violated."""


async def until(true: Callable[[], Awaitable[Any]], what: str, within: float = PATIENCE) -> float:
    """Wait until `true()`; return the seconds that it took. Raises `TrialError`."""
    began = time.monotonic()
    while not await true():
        if time.monotonic() - began > within:
            raise TrialError(f"waited {within:g} s in vain until {what}")
        await asyncio.sleep(0.05)
    return time.monotonic() - began


class Trial:
    """The parts, the clients that watch them, and the steps against them."""

    def __init__(self, world: World, key: str, password: str) -> None:
        self.world = world
        self.key = key
        self.visits = Visits(world.web_ports, key, password)
        self.client = FeedClient(world.web_ports, key)
        self.rows: list[tuple[str, ...]] = []
        self.broken: list[str] = []

    async def status(self) -> dict[str, Any]:
        """Return the status of the mirror; {} while it is unreachable."""
        answer = await self.visits.get("/api/admin/websocket/status/")
        found: dict[str, Any] = answer.json() if answer is not None and answer.status_code == 200 else {}
        return found

    async def live(self) -> bool:
        status = await self.status()
        return bool(status) and status["daemon"]["alive"] and status["state"] == "live"

    async def active(self) -> Child:
        """Return the daemon that owns the lease."""
        await until(self.live, "a daemon is live")
        name = (await self.status())["daemon"]["name"]
        for child in self.world.daemons:
            if name == f"{socket.gethostname()}:{child.pid}":
                return child
        raise TrialError(f"the lease is owned by {name}, which was not started here")

    def other(self, daemon: Child) -> Child:
        return next(child for child in self.world.daemons if child is not daemon)

    async def stands_by(self, daemon: Child) -> None:
        async def seen() -> bool:
            return f"{socket.gethostname()}:{daemon.pid}" in self.world.standing_by()

        await until(seen, f"{daemon.name} stands by")

    async def watched(self, title: str, step: Callable[[], Awaitable[str]]) -> None:
        """Run one step against the service, and note its effect on the pages and the feed."""
        began = time.monotonic()
        outcome = await step()
        await asyncio.sleep(2.0)  # effects may come a little later
        pages, feed = self.visits.since(began), self.client.since(began)
        if pages.gap > LONGEST_PAGE_GAP:
            self.broken.append(f"{title}: no page for {pages.gap:.1f} s")
        row = (title, outcome, f"{pages.failed} of {pages.asked}", f"{pages.gap:.2f} s", f"{feed.received}",
               f"{feed.silence:.1f} s", f"{feed.reconnects}")  # fmt: skip
        self.rows.append(row)
        print(f"  {title}: {outcome}", flush=True)

    async def active_daemon_killed(self) -> str:
        active = await self.active()
        standby = self.other(active)
        active.kill()
        began = time.monotonic()

        async def taken() -> bool:
            return str((await self.status()).get("daemon", {}).get("name", "")).endswith(f":{standby.pid}")

        lease = await until(taken, "the standby has the lease", LONGEST_TAKEOVER)
        await until(self.live, "it is live", LONGEST_TAKEOVER)
        live = time.monotonic() - began
        active.start()
        await self.stands_by(active)
        return f"taken over after {lease:.1f} s, live after {live:.1f} s"

    async def standby_killed(self) -> str:
        standby = self.other(await self.active())
        standby.kill()
        await asyncio.sleep(RESTART_AFTER)
        standby.start()
        began = time.monotonic()
        await self.stands_by(standby)
        return f"stands by again {time.monotonic() - began:.1f} s after its start"

    async def web_killed(self, number: int) -> str:
        web = self.world.webs[number]
        web.kill()
        await asyncio.sleep(RESTART_AFTER)
        web.start()
        took = await until(lambda: self.visits.answers(number), f"{web.name} answers again")
        return f"answers again {took:.1f} s after its start"

    async def marketplace_away(self) -> str:
        self.world.relay.kill()
        await asyncio.sleep(AWAY_SECONDS)
        self.world.relay.start()
        return f"away for {AWAY_SECONDS:g} s, live again {await until(self.live, 'live again'):.1f} s after"

    async def database_connections_cut(self) -> str:
        ended = self.world.cut_database_connections()
        await asyncio.sleep(0.5)
        return f"{ended} connections ended, live {await until(self.live, 'live again'):.1f} s after"

    async def redis_connections_cut(self) -> str:
        return f"{self.world.cut_redis_connections()} connections ended"

    async def daemon_stopped(self) -> str:
        """Stop the daemon as in an upgrade: SIGTERM, and the standby takes over."""
        active = await self.active()
        began = time.monotonic()
        status = await active.stop()
        stopped = time.monotonic() - began
        if status != 0:
            self.broken.append(f"a daemon that was asked to stop ended with status {status}")
        await until(self.live, "the other one is live", LONGEST_TAKEOVER)
        live = time.monotonic() - began
        active.start()
        return f"ended with {status} after {stopped:.1f} s, the other live after {live:.1f} s"

    async def ended(self) -> None:
        """Let the history end, approve removals on hold, and compare marketplace, mirror and copy."""
        await until(self.history_over, "the history has been replayed", 240)
        await until(self.in_sync, "verifysync finds the mirror in sync with the marketplace", 120)
        for daemon in self.world.daemons:
            await daemon.stop()
        newest = self.world.newest_change()
        await until(lambda: self.client.at(newest), f"the feed client has received all {newest} changes")
        kept = self.world.kept_changes()
        if kept != list(range(1, newest + 1)):
            self.broken.append("the feed has a gap or a number twice")
        self.broken += self.client.problems
        skills, categories = self.world.stored()
        for name, copy, mirror in (("skills", self.client.skills, skills),
                                   ("categories", self.client.categories, categories)):  # fmt: skip
            differing = sorted(key for key in copy.keys() | mirror.keys() if copy.get(key) != mirror.get(key))
            if differing:
                self.broken.append(f"{len(differing)} {name} of the client's copy differ, {differing[0]} first")
        print(f"  {len(skills)} skills and {len(categories)} categories; {newest} changes, each once and in order")

    async def history_over(self) -> bool:
        return "Replay has ended" in self.world.marketplace.output()

    async def in_sync(self) -> bool:
        await until(self.live, "a daemon is live")
        answer = await self.visits.get("/api/admin/sync/runs/?page_size=1")
        runs = answer.json()["results"] if answer is not None and answer.status_code == 200 else []
        if runs and runs[0]["state"] == "held":
            # More skills are absent than a full sync removes without approval.
            print(f"  run {runs[0]['id']} has {runs[0]['held_count']} removals on hold; approved, as a person would")
            seen = {"held_count": runs[0]["held_count"], "reason": "The replayed history removed them."}
            await self.visits.post(f"/api/admin/sync/runs/{runs[0]['id']}/approve/?wait=30", seen)
        status, output = await self.world.run("verifysync")
        print(f"  verifysync: exit {status}; {output.splitlines()[-1] if output else ''}", flush=True)
        return status == 0


async def trial(world: World, key: str, password: str) -> int:
    """Run all steps; return the exit status."""
    one = Trial(world, key, password)
    async with watching(one):
        await until(one.live, "the mirror is live")
        await one.stands_by(one.other(await one.active()))
        await one.visits.log_in()
        began = time.monotonic()
        print("Live; each part is killed in turn:", flush=True)
        for title, step in (
            ("nothing", lambda: asyncio.sleep(5, "5 s to compare with")),
            ("active daemon: kill -9", one.active_daemon_killed),
            ("standby daemon: kill -9", one.standby_killed),
            ("web process 1: kill -9", lambda: one.web_killed(0)),
            ("web process 2: kill -9", lambda: one.web_killed(1)),
            ("marketplace: unreachable", one.marketplace_away),
            ("PostgreSQL: all connections", one.database_connections_cut),
            ("Redis: all connections", one.redis_connections_cut),
            ("active daemon: SIGTERM", one.daemon_stopped),
        ):
            await one.watched(title, step)
        await one.ended()
        pages = one.visits.since(began)
        print()
        print(table(("step", "outcome", "pages failed", "longest gap", "changes", "feed silent", "reconnects"),
                    one.rows))  # fmt: skip
        print()
        print(f"Pages: {pages.asked} requested, {pages.failed} failed, {pages.elsewhere} from the other process, "
              f"longest gap {pages.gap:.2f} s; median {pages.median * 1000:.0f} ms.")  # fmt: skip
        print(f"Feed: {one.client.last} changes, median lag {one.client.lag(0.5) * 1000:.0f} ms, 99 % within "
              f"{one.client.lag(0.99):.1f} s of their commit.")  # fmt: skip
    for problem in one.broken:
        print(f"VIOLATED: {problem}")
    print("All guarantees kept: in sync with the marketplace, the copy equals the mirror, no gap, nothing twice."
          if not one.broken else f"{len(one.broken)} guarantees are violated.")  # fmt: skip
    return 1 if one.broken else 0


@asynccontextmanager
async def watching(one: Trial) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.visits.run()), asyncio.create_task(one.client.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await one.visits.close()


async def main(options: argparse.Namespace) -> int:
    name = f"mirror_try_{os.getpid()}"
    parts = urlsplit(options.postgres)
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "history.jsonl.gz"
        count = int(options.seconds * options.rate)
        if options.replay is None:
            made_up_history(history, count)
        else:
            part_of_history(options.replay, history, count)
        with psycopg.connect(options.postgres, autocommit=True) as admin:
            admin.execute(f'CREATE DATABASE "{name}"')
        world = World(
            Path(folder), urlunsplit(parts._replace(path=f"/{name}")), options.redis, history, options.rate,
            token=secrets.token_hex(16), relay_port=free_port(),
        )  # fmt: skip
        try:
            print(f"Starting: {count} changes to come, {options.rate:g} a second.", flush=True)
            key, password = await world.start()
            return await trial(world, key, password)
        except TrialError as error:
            print(f"VIOLATED: {error}")
            world.print_last_lines()
            return 1
        finally:
            world.end()
            with psycopg.connect(options.postgres, autocommit=True) as admin:
                admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", default="postgres://postgres@127.0.0.1:5432/postgres")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/9", help="a database number of its own")
    parser.add_argument("--replay", type=Path, help="a recorded history (JSON lines, .gz); without it one is made up")
    parser.add_argument("--rate", type=float, default=90.0, help="changes per second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=75.0, help="how long the history lasts (%(default)s)")
    with suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(main(parser.parse_args())))
    sys.exit(130)
