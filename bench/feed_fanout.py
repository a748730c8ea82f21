# ruff: noqa: T201
"""Many clients of the change feed on one web process: completeness, order, latency and memory.

    python bench/feed_fanout.py                                     # SQLite, no Redis
    python bench/feed_fanout.py --redis redis://127.0.0.1:6379/0    # with hints
    python bench/feed_fanout.py --database postgres://u:p@host/db   # PostgreSQL, in a scratch database beside db

Two runs of `--seconds` (60): 1,000 clients at 10 changes per second, 100 clients at 100. Web server (uvicorn), writer
and clients are three processes on this machine. Latency is from the change's time, taken in its transaction, to the
client's socket. One more client never reads: only that one must be disconnected. Exit 1 when anything was missed.
"""

import argparse
import asyncio
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ((1000, 10.0), (100, 100.0))
# For the client that never reads: 10 MB, more than all buffers on the way.
STORED, STORED_CHARS = 2000, 5000
SKILLS = 50
# In seconds: after the last change, and for the clients to connect.
PATIENCE = 60.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--database", help="a PostgreSQL server's URL; without it: SQLite")
    options.add_argument("--redis", default="", help="a Redis, for hints")
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--role", choices=("prepare", "write"), help=argparse.SUPPRESS)
    options.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    # A connection is a file: 1,000 of them are more than many shells allow.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536) if most > 0 else 65_536, most))
    match chosen.role:
        case "prepare":
            print(prepare())
        case "write":
            write(float(chosen.arguments[0]), float(chosen.arguments[1]))
        case _:
            sys.exit(run(chosen))


def run(chosen: argparse.Namespace) -> int:
    with scratch_database(chosen.database) as url:
        environment = {
            **os.environ, "DJANGO_ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "atomproject.settings", "DATABASE_URL": url,
            "REDIS_URL": chosen.redis, "DJANGO_SECRET_KEY": secrets.token_hex(32), "LOG_LEVEL": "WARNING",
        }  # fmt: skip
        key = subprocess.run(again("prepare"), env=environment, check=True, capture_output=True, text=True).stdout
        vendor = "PostgreSQL" if chosen.database else "SQLite"
        print(f"{vendor}, {'hints by Redis' if chosen.redis else 'no Redis'}, load of the machine before: "
              f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip
        heads = ("clients", "changes", "messages", "received", "missed", "p50 ms", "p99 ms", "max ms", "CPU %")
        print(f"{'{:>9}' * len(heads)}".format(*heads) + f"{'RSS MiB':>15}  client that never reads")
        print(f"{'':9}{'per s':>9}{'per s':>9}{'':54}{'begin/peak/end':>15}", flush=True)
        return max(scenario(count, rate, chosen.seconds, environment, key.strip()) for count, rate in SCENARIOS)


def scenario(count: int, rate: float, seconds: float, environment: dict[str, str], key: str) -> int:
    """Measure one scenario. Return 1 when a client missed a change or received it twice."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "atomproject.asgi:application",
        "--port",
        str(port),
        "--lifespan",
        "off",
    ]
    command += ["--ws-per-message-deflate", "false", "--log-level", "warning"]
    clients = [sys.executable, str(ROOT / "bench" / "feed_clients.py"), str(count), str(port), key]
    with process(command, environment) as web:
        wait_for_port(port)
        with process(clients, environment, pipes=True) as reading:
            assert reading.stdout is not None
            assert reading.stdout.readline() == "ready\n", "the clients did not get in"
            before, cpu, begun = resident(web.pid), cpu_seconds(web.pid), time.monotonic()
            with process(again("write", rate, seconds), environment, pipes=True) as writer:
                peak = before
                while writer.poll() is None:
                    peak = max(peak, resident(web.pid))
                    time.sleep(0.2)
                assert writer.stdout is not None
                last = int(writer.stdout.readline())
            busy = (cpu_seconds(web.pid) - cpu) / (time.monotonic() - begun)
            result = json.loads(reading.communicate(f"{last}\n")[0])
            after = resident(web.pid)
    row = (count, round(rate), round(result["messages"] / seconds), result["received"], result["missed"], *result["ms"])
    memory = "/".join(f"{mib:.0f}" for mib in (before, peak, after))
    print(f"{'{:>9}' * len(row)}".format(*row) + f"{busy * 100:9.0f}{memory:>15}  {result['stalled']}", flush=True)
    return 1 if result["missed"] or result["stalled"] == "still there" else 0


def prepare() -> str:
    """Create a mirror with a long feed, and an agent. Return the agent's key."""
    write_event = set_up()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, skip_checks=True)
    from marketplace_sync.governance.actions import IssueKey, RegisterAgent
    from marketplace_sync.governance.actors import COMMAND_LINE
    from marketplace_sync.protocol.events import SKILL_EMPTY, SkillRecord

    lease = acquire_lease()
    write_event(
        lease,
        [
            SkillRecord(f"stored-{number}", {**SKILL_EMPTY, "code": secrets.token_hex(STORED_CHARS // 2)}, {}, None)
            for number in range(STORED)
        ]
        + [SkillRecord(f"rated-{number}", {**SKILL_EMPTY}, {}, None) for number in range(SKILLS)],
    )
    lease.release()
    RegisterAgent("bench", "STUDENT", actor=COMMAND_LINE).perform()
    return IssueKey("bench", actor=COMMAND_LINE).perform().raw


def write(rate: float, seconds: float) -> None:
    """Commit `rate` changes per second, one per transaction, with hints like the daemon's; print the last number."""
    write_event = set_up()
    from marketplace_sync.live.hints import hint_sender
    from marketplace_sync.protocol.events import RatingChanged

    async def writing() -> int:
        hint, lease = hint_sender(), await asyncio.to_thread(acquire_lease)
        begun, seq = time.monotonic(), 0
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(begun + number / rate - time.monotonic(), 0))
            figures = {"average_rating": number % 5 + 0.5, "rating_count": number}
            event = RatingChanged(f"rated-{number % SKILLS}", 5, figures, None)
            seq = await asyncio.to_thread(write_event, lease, [event])
            hint(seq)
        await asyncio.to_thread(lease.release)
        return seq

    print(asyncio.run(writing()), flush=True)


def set_up() -> Any:
    """Django; and the way to write events into the mirror."""
    sys.path.insert(0, str(ROOT))
    import django

    django.setup()
    from marketplace_sync.mirror.apply import apply_batch
    from marketplace_sync.mirror.arrived import Arrived
    from marketplace_sync.models import FeedChange

    def write_event(lease: Any, events: list[Any]) -> int:
        now = time.time_ns() // 1000
        items = [Arrived(event, now + number, FeedChange.Source.STREAM) for number, event in enumerate(events)]
        seq = apply_batch(items, lease).feed_seq
        assert seq is not None  # every event changes something
        return seq

    return write_event


def acquire_lease() -> Any:
    from marketplace_sync.mirror.lease import acquire

    return acquire(f"bench:{os.getpid()}")


@contextmanager
def process(command: list[str], environment: dict[str, str], *, pipes: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run a program for the time of the context."""
    pipe = subprocess.PIPE if pipes else None
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    running.wait(10)
                running.kill()


@contextmanager
def scratch_database(server_url: str | None) -> Iterator[str]:
    """Yield the URL of an empty database, which is dropped afterwards."""
    if server_url is None:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/bench.sqlite3"
        return
    import psycopg
    from psycopg import sql

    name = f"bench_feed_fanout_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
        finally:
            server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def again(role: str, *arguments: object) -> list[str]:
    """Return the command that runs this script again in another role."""
    return [sys.executable, __file__, "--role", role, *map(str, arguments)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def resident(pid: int) -> float:
    """Return the memory of the process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of the process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
