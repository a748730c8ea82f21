# ruff: noqa: T201
"""The parts of `try_it.py`: processes, the relay in front of the marketplace, the database seen from outside.

Run as a program it is the relay: try_it_world.py LISTEN TO, two ports of this machine.
"""

import asyncio
import gzip
import json
import os
import random
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg.rows import dict_row

PROJECT = Path(__file__).resolve().parents[1]
MANAGE = [sys.executable, str(PROJECT / "manage.py")]
STOP_SECONDS = 15.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Child:
    """One part: started, killed and started again under the same name, with one log."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=PROJECT, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill the process by SIGKILL, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> int:
        """Stop the process by SIGTERM; return its exit status."""
        process = self._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        return int(process.returncode)

    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class World:
    """All parts. `database` is the URL of an existing, empty database."""

    def __init__(
        self, folder: Path, database: str, redis_url: str, history: Path, rate: float, *, token: str, relay_port: int
    ) -> None:
        market_port = free_port()
        self._database = database
        self._redis_url = redis_url
        self.web_ports = (free_port(), free_port())
        ours = ("ATOM_SAAS_", "FEED_", "AUDIT_", "DJANGO_", "LOG_", "METRICS_", "APPROVALS_")
        bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment = {
            **bare,
            "DJANGO_SETTINGS_MODULE": "atomproject.settings",
            "DJANGO_ENV_FILE": "",
            "APPROVALS_BY_AGENTS": "true",  # the key of an agent approves, in place of a person
            "DJANGO_SECRET_KEY": token * 2,
            "DATABASE_URL": database,
            "REDIS_URL": redis_url,
            "LOG_FORMAT": "json",
            "ATOM_SAAS_API_URL": f"http://127.0.0.1:{relay_port}",
            "ATOM_SAAS_API_TOKEN": token,
            "ATOM_SAAS_PAGE_SIZE": "1000",
            # With the default of 30 s, kills closer together would count as failures and begin the fallback of an hour.
            "ATOM_SAAS_WS_HEALTHY_AFTER": "5",
        }
        market = ["runsimulator", "--port", str(market_port), "--token", token, "--replay", str(history)]

        def child(name: str, *command: str) -> Child:
            return Child(name, list(command), self.environment, folder)

        self.marketplace = child("marketplace", *MANAGE, *market, "--rate", str(rate))
        self.relay = child("relay", sys.executable, __file__, str(relay_port), str(market_port))
        self.daemons = [child(f"daemon-{number}", *MANAGE, "runsync") for number in (1, 2)]
        serve = [sys.executable, "-m", "uvicorn", "atomproject.asgi:application", "--http", "h11", "--lifespan", "off"]
        self.webs = [
            child(f"web-{number}", *serve, "--no-access-log", "--port", str(port))
            for number, port in enumerate(self.web_ports, 1)
        ]

    async def start(self) -> tuple[str, str]:
        """Migrate, create an agent and a person, and start all; return the agent's key and the person's password."""
        await self._manage("migrate", "--verbosity", "0", "--skip-checks")
        created = await self._manage("createagent", "operator", "--maturity", "AUTONOMOUS", "--json")
        password = self.environment["DJANGO_SUPERUSER_PASSWORD"] = self.environment["ATOM_SAAS_API_TOKEN"]
        await self._manage("createsuperuser", "--no-input", "--username", "operator", "--email", "operator@localhost")
        for part in (self.marketplace, self.relay, *self.webs, *self.daemons):
            part.start()
        return json.loads(created)["key"], password

    def end(self) -> None:
        for part in (*self.daemons, *self.webs, self.relay, self.marketplace):
            part.kill()

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command to its end; return its status and stdout."""
        process = await asyncio.create_subprocess_exec(
            *MANAGE, *arguments, cwd=PROJECT, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode().strip() or err.decode().strip()

    async def _manage(self, *arguments: str) -> str:
        status, output = await self.run(*arguments)
        if status != 0:
            raise SystemExit(f"manage.py {arguments[0]} failed: {output}")
        return output

    def cut_database_connections(self) -> int:
        with psycopg.connect(self._database, autocommit=True) as connection:
            return connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()[0]

    def cut_redis_connections(self) -> int:
        """End the connections to this trial's database number only, because others may use the server."""
        with redis.Redis.from_url(self._redis_url) as connection:
            number = str(connection.connection_pool.connection_kwargs.get("db", 0))
            own = connection.client_id()
            found = [
                client for client in connection.client_list() if client["db"] == number and int(client["id"]) != own
            ]
            return sum(bool(connection.client_kill_filter(_id=client["id"])) for client in found)

    def standing_by(self) -> set[str]:
        return {row["holder"] for row in self._ask("SELECT holder FROM marketplace_sync_standby")}

    def newest_change(self) -> int:
        return int(self._ask("SELECT feed_seq FROM marketplace_sync_lease")[0]["feed_seq"])

    def kept_changes(self) -> list[int]:
        return [row["seq"] for row in self._ask("SELECT seq FROM marketplace_sync_change ORDER BY seq")]

    def stored(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return every skill and category of the mirror, by the names of the feed."""
        skills = self._ask(
            "SELECT skill_id, s.name, s.description, version, code, command, python_packages, npm_packages, tags, "
            "metadata, c.name AS category, average_rating, rating_count, extra, s.remote_created_at, "
            "s.remote_updated_at, rating_at FROM marketplace_sync_skill s "
            "LEFT JOIN marketplace_sync_category c ON c.id = s.category_id"
        )
        categories = self._ask(
            "SELECT name, description, icon_url, skill_count, remote_created_at, remote_updated_at "
            "FROM marketplace_sync_category"
        )
        return {row["skill_id"]: as_json(row) for row in skills}, {row["name"]: as_json(row) for row in categories}

    def _ask(self, query: str) -> list[dict[str, Any]]:
        with psycopg.connect(self._database, row_factory=dict_row) as connection:
            return connection.execute(query).fetchall()

    def print_last_lines(self) -> None:
        for part in (self.marketplace, self.relay, *self.webs, *self.daemons):
            for line in part.output().splitlines()[-8:]:
                print(f"    {part.name}: {line}")


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the types that JSON has."""
    return {
        name: value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def part_of_history(source: Path, to: Path, count: int) -> None:
    """Write the first `count` changes of a recorded history."""
    with (gzip.open if source.suffix == ".gz" else open)(source, "rb") as lines, gzip.open(to, "wb") as part:
        for _, line in zip(range(count), lines, strict=False):
            part.write(line)


def made_up_history(to: Path, count: int) -> None:
    """Write a catalogue that grows and changes: new skills, new versions, a removal now and then."""
    draw, moment = random.Random(7), datetime.now(UTC) - timedelta(seconds=count)
    with gzip.open(to, "wt") as history:
        for number in range(count):
            moment += timedelta(milliseconds=900)
            at = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            skill = number if number < 300 else draw.randrange(600)
            data: dict[str, Any] = {"skill_id": f"skill-{skill:04}"}
            if number >= 300 and draw.random() < 0.05:
                kind, data["deleted_at"] = "skill_delete", at
            else:
                kind = "skill_update"
                data |= {
                    "name": f"Skill {skill}", "description": f"Made up, change {number}.", "code": f"print({number})",
                    "version": f"1.0.{number}", "tags": ["made-up"], "category": f"room-{skill % 9}", "updated_at": at,
                }  # fmt: skip
            history.write(json.dumps({"type": kind, "data": data, "timestamp": at}) + "\n")


async def relay(listen: int, to: int) -> None:
    """Relay all traffic until this process is killed, which makes the marketplace unreachable without stopping it."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with await asyncio.start_server(connected, "127.0.0.1", listen) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), int(sys.argv[2])))
