"""The demo: a simulated marketplace, the daemon and the web server as three processes, watched by a fourth.

Each is the real command that an operator would start; the demo only hands them their settings. What a newcomer needs
(address, password, key) is printed last, once there is something to see.
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
# A child that has not ended by then is killed: Ctrl-C must leave no process.
STOP_SECONDS = 8.0
# One line of changes in this time, so the address above them stays on the screen for minutes; then it is repeated.
REPORT_SECONDS = 5.0
ADDRESS_EVERY = 20  # lines of changes
# A mirror that is not full by then is no reason to keep the address back.
ADDRESS_AFTER_SECONDS = 30.0
# Of the log, where a process has ended unasked.
LAST_LINES = 10
ADMIN = "admin"
AGENT = "demo"
# Long enough for a demo; the keys of earlier ones lose their worth by themselves.
KEY_LIFE = timedelta(days=1)


class DemoError(Exception):
    """One of the demo's processes ended, or can't begin; the text says which and why."""


@dataclass(slots=True)
class Look:
    """What the mirror holds right now."""

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
    """The user `admin`, made or with a new password; the password."""
    password = secrets.token_urlsafe(9)
    users = get_user_model()
    admin, _ = users.objects.get_or_create(username=ADMIN, defaults={"is_staff": True, "is_superuser": True})
    admin.set_password(password)
    admin.is_staff = admin.is_superuser = True
    admin.save()
    return password


def make_agent() -> str:
    """A new key of the agent `demo`, which is made, or enabled again, where need be. It may do all that agents may."""
    agent = Agent.objects.filter(name=AGENT).first()
    if agent is None:
        RegisterAgent(AGENT, Maturity.AUTONOMOUS, actor=COMMAND_LINE, origin="demo").perform()
    elif not agent.enabled:
        EnableAgent(AGENT, actor=COMMAND_LINE, origin="demo").perform()
    return IssueKey(AGENT, KEY_LIFE, actor=COMMAND_LINE, origin="demo").perform().raw


def database_line() -> str:
    """Return where the demo writes, and what becomes of it."""
    database = connections["default"].settings_dict
    sqlite = connections["default"].vendor == "sqlite"
    where = f"SQLite file {database['NAME']}" if sqlite else f"{database['NAME']} at DATABASE_URL"
    return f"Database {where}; it stays when the demo ends, and the next one goes on with it"


class Demo:
    """Run until `stop` is set. `say` takes one line for the person who watches."""

    def __init__(self, port: int, say: Callable[[str], None], stop: asyncio.Event) -> None:
        self._port = port
        self._say = say
        self._stop = stop
        self._address: list[str] = []  # what a newcomer needs, in lines
        self._begun = time.monotonic()
        # Of all three; between the changes their lines would be noise. It goes with a demo that ends in order.
        self._log = tempfile.NamedTemporaryFile(prefix="mirror-demo-", suffix=".log", delete=False)  # noqa: SIM115
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._folder = Path(django_settings.BASE_DIR)
        self._unread: asyncio.Task[None] | None = None

    async def run(self, password: str, key: str) -> None:
        """Start everything, show what happens, end everything. Raises `DemoError`."""
        self._address = [
            f"Web      http://127.0.0.1:{self._port}/admin/   user {ADMIN}, password {password}",
            f"Agent    {AGENT}, key {key}",
        ]
        self._say(f"Log      {self._log.name}")
        try:
            marketplace = await self._start_marketplace()
            await self._start("daemon", self._manage("runsync"), marketplace)
            # h11 bounds what a client may send as headers; httptools keeps whatever comes, 100 MiB of them as well.
            server = ["-m", "uvicorn", _asgi_application(), "--http", "h11", "--port", str(self._port)]
            # A browser that waits for an answer must not put the end off.
            server += ["--lifespan", "off", "--timeout-graceful-shutdown", "2"]
            # A page that keeps itself up to date asks several times per second; that would bury the changes.
            server += ["--no-access-log"]
            await self._start("web", server, marketplace)
            await self._watch()
        finally:
            await self._end()
            self._log.close()
        os.unlink(self._log.name)

    async def _start_marketplace(self) -> Mapping[str, str]:
        """Start the simulator; the settings by which the others find it."""
        # In hexadecimal: one that began with "-" would be read as an option.
        token = secrets.token_hex(24)
        options = ["--port", "0", "--skills", str(SKILLS), "--changes-per-second", str(CHANGES_PER_SECOND)]
        command = self._manage("runsimulator", "--token", token, *options)
        child = await self._start("marketplace", command, {}, stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None
        async for line in child.stdout:
            name, _, url = line.decode().strip().partition("=")
            if name == "ATOM_SAAS_API_URL":
                self._say(f"Market   {url}   simulated, {SKILLS} skills, {CHANGES_PER_SECOND:g} changes per second")
                # What it says from now on is for nobody; a full pipe would stop it.
                self._unread = asyncio.create_task(_read_on(child.stdout), name="demo's marketplace output")
                return {name: url, "ATOM_SAAS_API_TOKEN": token}
        raise DemoError(f"the simulated marketplace did not start; {self._last_words()}")

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
        """End all processes at once; what they were about to write is lost."""
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
                    raise DemoError(f"the {name} has ended with status {child.returncode}; {self._last_words()}")
            look = await asyncio.to_thread(_look)
            now = time.monotonic()
            addressed = reported > 0
            if shown is None or look.state != shown.state or (not addressed and look != shown):
                self._say(f"Mirror   {look.state}: {look.skills} skills, {look.categories} categories")
            if not addressed:
                waited = now - self._begun > ADDRESS_AFTER_SECONDS
                if (look.state == "live" or waited) and await asyncio.to_thread(_listens, self._port):
                    self._say_address()
                    reported, next_report = max(look.seq, 1), now + REPORT_SECONDS
            elif now >= next_report and look.seq > reported:
                self._say(f"  {await asyncio.to_thread(_changes, reported, look.seq)}")
                reported, next_report, lines = look.seq, now + REPORT_SECONDS, lines + 1
                if lines % ADDRESS_EVERY == 0:
                    self._say(self._address[0])
            shown = look
            try:
                async with asyncio.timeout(1.0):
                    await self._stop.wait()
            except TimeoutError:
                continue

    def _say_address(self) -> None:
        for line in ("", *self._address, "         Ctrl-C stops everything. Changes as they arrive:"):
            self._say(line)

    def _last_words(self) -> str:
        lines = Path(self._log.name).read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n  ".join([f"the log is {self._log.name}, and ends with:", *lines])

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
    """This project's, as uvicorn wants it: `module:name`."""
    return ":".join(django_settings.ASGI_APPLICATION.rsplit(".", 1))


async def _read_on(pipe: asyncio.StreamReader) -> None:
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
