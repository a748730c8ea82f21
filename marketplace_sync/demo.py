"""The demo: a simulated marketplace, the daemon and the web server as three processes, watched by a fourth.

Each is the command that an operator would start; the demo only sets their environment. It prints the address, the
password and the key last, once there is something to see.
"""

import asyncio
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import connections

from marketplace_sync.governance.actions import EnableAgent, IssueKey, RegisterAgent
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.mirror.status import status
from marketplace_sync.models import Agent, Category, FeedChange, Skill

SKILLS = 300
CHANGES_PER_SECOND = 2.0
# A child that has not ended by then is killed: Ctrl-C must leave no process behind.
STOP_SECONDS = 8.0
# One line of changes per this many seconds: the address above them stays on the screen for minutes, then it is
# repeated.
REPORT_SECONDS = 5.0
ADDRESS_EVERY = 20  # lines of changes
# The address is printed by then even if the mirror is not full yet.
ADDRESS_AFTER_SECONDS = 30.0
# Lines of the log that are shown if a process ends unexpectedly.
LAST_LINES = 10
ADMIN = "admin"
AGENT = "demo"
# Long enough for a demo; the keys of earlier demos expire.
KEY_LIFE = timedelta(days=1)


class DemoError(Exception):
    """One of the demo's processes ended or cannot start; the text names it and the reason."""


@dataclass(slots=True)
class Look:
    """The state and size of the mirror now, and its newest feed number."""

    state: str
    skills: int
    categories: int
    seq: int


def free_port(wanted: int) -> int:
    """Return `wanted`, or any free port of this machine when it is taken or 0."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no port is free on 127.0.0.1")


def make_admin() -> str:
    """Create the user `admin`, or give it a new password. Return the password."""
    password = secrets.token_urlsafe(9)
    users = get_user_model()
    admin, _ = users.objects.get_or_create(username=ADMIN, defaults={"is_staff": True, "is_superuser": True})
    admin.set_password(password)
    admin.is_staff = admin.is_superuser = True
    admin.save()
    return password


def make_agent() -> str:
    """Issue a key for the agent `demo`, which is created or enabled if needed. It may do all that agents may."""
    agent = Agent.objects.filter(name=AGENT).first()
    if agent is None:
        RegisterAgent(AGENT, Maturity.AUTONOMOUS, actor=COMMAND_LINE, origin="demo").perform()
    elif not agent.enabled:
        EnableAgent(AGENT, actor=COMMAND_LINE, origin="demo").perform()
    return IssueKey(AGENT, KEY_LIFE, actor=COMMAND_LINE, origin="demo").perform().raw


def database_line() -> str:
    """Return a line about the database that the demo writes to."""
    database = connections["default"].settings_dict
    sqlite = connections["default"].vendor == "sqlite"
    where = f"SQLite file {database['NAME']}" if sqlite else f"{database['NAME']} at DATABASE_URL"
    return f"Database {where}; it is kept when the demo ends, and the next demo continues with it"


class Demo:
    """Run until `stop` is set. `print_line` prints one line for the person who watches."""

    def __init__(self, port: int, print_line: Callable[[str], None], stop: asyncio.Event) -> None:
        self._port = port
        self._print = print_line
        self._stop = stop
        self._address: list[str] = []  # address, password and key, in lines
        self._begun = time.monotonic()
        # Of all three processes; between the changes their lines would be noise. Deleted when the demo ends normally.
        self._log = tempfile.NamedTemporaryFile(prefix="mirror-demo-", suffix=".log", delete=False)  # noqa: SIM115
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._folder = Path(django_settings.BASE_DIR)
        self._unread: asyncio.Task[None] | None = None

    async def run(self, password: str, key: str) -> None:
        """Start everything, show what happens, and end everything. Raise `DemoError`."""
        self._address = [
            f"Web      http://127.0.0.1:{self._port}/admin/   user {ADMIN}, password {password}",
            f"Agent    {AGENT}, key {key}",
        ]
        self._print(f"Log      {self._log.name}")
        try:
            marketplace = await self._start_marketplace()
            await self._start("daemon", self._manage("runsync"), marketplace)
            # h11 limits the size of headers; httptools stores any size, even 100 MiB.
            server = ["-m", "uvicorn", _asgi_application(), "--http", "h11", "--port", str(self._port)]
            # A browser that waits for an answer must not delay the end.
            server += ["--lifespan", "off", "--timeout-graceful-shutdown", "2"]
            # A page that keeps itself up to date asks several times per second; that would hide the changes.
            server += ["--no-access-log"]
            await self._start("web", server, marketplace)
            await self._watch()
        finally:
            await self._end()
            self._log.close()
        os.unlink(self._log.name)

    async def _start_marketplace(self) -> Mapping[str, str]:
        """Start the simulator. Return the settings by which the others find it."""
        # In hexadecimal, because a token that began with "-" would be read as an option.
        token = secrets.token_hex(24)
        options = ["--port", "0", "--skills", str(SKILLS), "--changes-per-second", str(CHANGES_PER_SECOND)]
        command = self._manage("runsimulator", "--token", token, *options)
        child = await self._start("marketplace", command, {}, stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None
        async for line in child.stdout:
            name, _, url = line.decode().strip().partition("=")
            if name == "ATOM_SAAS_API_URL":
                self._print(f"Market   {url}   simulated, {SKILLS} skills, {CHANGES_PER_SECOND:g} changes per second")
                # Its later output is read and dropped: a full pipe would stop it.
                self._unread = asyncio.create_task(_drain(child.stdout), name="demo's marketplace output")
                return {name: url, "ATOM_SAAS_API_TOKEN": token}
        raise DemoError(f"the simulated marketplace did not start; {self._log_tail()}")

    def _manage(self, *arguments: str) -> list[str]:
        return [str(self._folder / "manage.py"), *arguments]

    async def _start(
        self, name: str, command: list[str], settings: Mapping[str, str], *, stdout: int | None = None
    ) -> asyncio.subprocess.Process:
        environment = {**os.environ, "ATOM_SAAS_ENABLED": "true", "ATOM_SAAS_WS_URL": "", **settings}
        # In a session of its own, so that Ctrl-C reaches the demo alone, which then ends the others in order. Where the
        # demo is killed, `parent_watch` ends them.
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "marketplace_sync.parent_watch", *command, env=environment, cwd=self._folder,
            stdout=stdout, stderr=self._log, stdin=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._children[name] = child
        return child

    def kill(self) -> None:
        """Kill all processes; what they were about to write is lost."""
        for child in self._children.values():
            if child.returncode is None:
                child.kill()

    async def _watch(self) -> None:
        """Show the mirror filling, then the address, then changes as they arrive, until asked to stop."""
        shown: Look | None = None
        reported, next_report, lines = 0, 0.0, 0
        while not self._stop.is_set():
            for name, child in self._children.items():
                if child.returncode is not None:
                    raise DemoError(f"the {name} has ended with status {child.returncode}; {self._log_tail()}")
            look = await asyncio.to_thread(_look)
            now = time.monotonic()
            addressed = reported > 0
            if shown is None or look.state != shown.state or (not addressed and look != shown):
                self._print(f"Mirror   {look.state}: {look.skills} skills, {look.categories} categories")
            if not addressed:
                waited = now - self._begun > ADDRESS_AFTER_SECONDS
                if (look.state == "live" or waited) and await asyncio.to_thread(_listens, self._port):
                    self._print_address()
                    reported, next_report = max(look.seq, 1), now + REPORT_SECONDS
            elif now >= next_report and look.seq > reported:
                self._print(f"  {await asyncio.to_thread(_changes, reported, look.seq)}")
                reported, next_report, lines = look.seq, now + REPORT_SECONDS, lines + 1
                if lines % ADDRESS_EVERY == 0:
                    self._print(self._address[0])
            shown = look
            try:
                async with asyncio.timeout(1.0):
                    await self._stop.wait()
            except TimeoutError:
                continue

    def _print_address(self) -> None:
        for line in ("", *self._address, "         Press Ctrl-C to stop everything. Changes as they arrive:"):
            self._print(line)

    def _log_tail(self) -> str:
        lines = Path(self._log.name).read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n  ".join([f"the log {self._log.name} ends with:", *lines])

    async def _end(self) -> None:
        for child in self._children.values():
            if child.returncode is None:
                child.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(*(child.wait() for child in self._children.values()))
        except TimeoutError:
            for child in self._children.values():
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        if self._unread is not None:
            await self._unread


def _asgi_application() -> str:
    """Return the ASGI application of this project as uvicorn expects it: `module:name`."""
    return ":".join(django_settings.ASGI_APPLICATION.rsplit(".", 1))


async def _drain(pipe: asyncio.StreamReader) -> None:
    while await pipe.read(65_536):
        pass


def _look() -> Look:
    try:
        newest = FeedChange.objects.order_by("-seq").values_list("seq", flat=True).first() or 0
        return Look(str(status().row.state), Skill.objects.count(), Category.objects.count(), newest)
    finally:
        connections.close_all()


def _changes(after: int, up_to: int) -> str:
    """Return one line about the changes above `after`, up to `up_to`: the newest, and how many there are besides.

    Without the upper bound a change that was committed since `up_to` was read would be shown now and again later.
    """
    try:
        changes = FeedChange.objects.filter(seq__gt=after, seq__lte=up_to)
        newest, count = changes.order_by("-seq").first(), changes.count()
        if newest is None:  # forgotten meanwhile
            return f"{up_to - after} changes"
        name = Skill.objects.filter(skill_id=newest.key).values_list("name", flat=True).first() or newest.key
        fields = f"  ({', '.join(newest.fields)})" if newest.fields else ""
        more = f"  and {count - 1} more" if count > 1 else ""
        return f"{newest.at:%H:%M:%S}  {newest.kind:<17} {name}{fields}{more}"
    finally:
        connections.close_all()


def _listens(port: int) -> bool:
    """Return whether the web server takes connections."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
