"""The project's programs as processes of their own, for tests: started, watched with deadlines, ended, read."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.fork_server import ForkedProcess, can_fork, fork
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror

MANAGE = Path(__file__).resolve().parents[3] / "manage.py"
# Django takes 1 to 2 s to start on an idle machine, and ten times that on one where all tests of a project run.
PATIENCE = 45.0
# A shell ignores SIGINT for what it runs in the background, and every program inherits that: Ctrl-C must reach ours.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# `program_environment` of conftest.py: settings -> the environment of a program that uses the tests' database.
Environment = Callable[..., dict[str, str]]


class Ended(NamedTuple):
    """A program that has ended: its exit status (negative: the signal that killed it), stdout, stderr."""

    status: int
    out: str
    err: str


class Program:
    """One running program, with its `command` and everything that it prints."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.command = command
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = _start(command, environment, folder, self._out, self._err)
        except BaseException:
            self._out.close()
            self._err.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        return _content(self._out)

    @property
    def err(self) -> str:
        return _content(self._err)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL and wait until the process is gone."""
        self._process.kill()
        self._process.wait()

    def wait(self, within: float = PATIENCE) -> Ended:
        """Wait for the program to end. Blocks the thread."""
        return Ended(self._process.wait(within), self.out, self.err)

    async def ended(self, within: float = PATIENCE) -> Ended:
        """Wait for the program to end."""
        await until(lambda: not self.running, f"{self.name} has ended", within)
        return self.wait()

    async def prints(self, pattern: str, within: float = PATIENCE) -> re.Match[str]:
        """Wait until stdout or stderr matches `pattern`. Fails if the program ends without a match."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.out) or re.search(pattern, self.err)

        await until(lambda: found() or not self.running, f"{self.name} prints {pattern!r}", within)
        match = found()
        assert match, f"{self.name} ended with {self._process.returncode} without printing {pattern!r}"
        return match

    @property
    def name(self) -> str:
        return " ".join(self.command[2:])

    def end(self) -> None:
        """Kill it if it still runs, with everything that it has started, and close its output."""
        if self.running:
            started = children_of(self.pid)
            self.kill()
            for child in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        self._out.close()
        self._err.close()


def _start(
    command: list[str], environment: Mapping[str, str], folder: Path, out: IO[bytes], err: IO[bytes]
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start a program, by a fork where that is the same. It has a session of its own: Ctrl-C is for the tests."""
    if can_fork(command, environment, folder):
        with open(os.devnull, "rb") as nothing:
            return fork(command, environment, folder, stdin=nothing.fileno(), stdout=out.fileno(), stderr=err.fileno())
    return subprocess.Popen(
        command, env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        start_new_session=True,
    )  # fmt: skip


def run_program(
    command: list[str], environment: Mapping[str, str], folder: Path = MANAGE.parent, within: float = PATIENCE
) -> Ended:
    """Run a program to its end, for tests without an event loop. Raises `TimeoutExpired`, after killing it."""
    program = Program(command, environment, folder)
    try:
        return program.wait(within)
    finally:
        program.end()


class Programs:
    """Start programs with one environment. All of them have ended when `programs` is left."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.started: list[Program] = []

    def start(self, *arguments: str, folder: Path = MANAGE.parent, **settings: object) -> Program:
        """Start `manage.py` with these arguments; `settings` are added to its environment."""
        environment = {**self.environment, **{name: str(value) for name, value in settings.items()}}
        program = Program([sys.executable, str(MANAGE), *arguments], environment, folder)
        self.started.append(program)
        return program

    async def run(self, *arguments: str, **settings: Any) -> Ended:
        """Start `manage.py` and wait for its end."""
        return await self.start(*arguments, **settings).ended()


@contextmanager
def programs(environment: Mapping[str, str]) -> Iterator[Programs]:
    """Start programs for one test. When the test fails, pytest shows everything that they printed."""
    starter = Programs(environment)
    try:
        yield starter
    except BaseException:
        for program in starter.started:
            sys.stderr.write(f"--- {program.name} (pid {program.pid})\n{program.out}{program.err}\n")
        raise
    finally:
        for program in starter.started:
            program.end()


@asynccontextmanager
async def mirrored(
    environment: Environment, *, skills: int = 25, **settings: object
) -> AsyncIterator[tuple[SimulatorServer, Mirror, Programs]]:
    """Yield a marketplace, questions to its mirror, and the programs to fill it; none of them runs yet."""
    async with marketplace(skills=skills) as server, mirror(server, start=False) as watched:
        with programs(environment(**settings_for(server, **settings))) as start:
            yield server, watched, start


async def until_live(watched: Mirror, daemon: Program) -> None:
    """Wait until the daemon logs the state `live` and the mirror's database has it."""
    await daemon.prints("state state=live")
    await watched.until_state("live")


async def until(true: Callable[[], Any], what: str, within: float = PATIENCE) -> None:
    """Wait until `true()`, a function or a coroutine function; fails with `what`."""
    deadline = time.monotonic() + within
    while True:
        answer = true()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < deadline, f"waited {within:g} s in vain until {what}"
        await asyncio.sleep(0.01)


def settings_for(server: SimulatorServer, **changes: object) -> dict[str, str]:
    """Return the environment that mirrors `server`, with quick clocks and without limits; `changes` by setting."""
    quick: dict[str, object] = {
        "ATOM_SAAS_API_URL": server.api_url,
        "ATOM_SAAS_API_TOKEN": server.token,
        "ATOM_SAAS_WS_HEALTHY_AFTER": 0.5,
        "ATOM_SAAS_WS_RECONNECT_DELAYS": "0.05,0.1,0.2",
        "ATOM_SAAS_WS_RECONNECT_JITTER": 0,
        "ATOM_SAAS_WS_FALLBACK_SECONDS": 1,
        "ATOM_SAAS_WS_RATE_LIMIT": 0,
        "ATOM_SAAS_API_REQUESTS_PER_MINUTE": 0,
    }
    return {name: str(value) for name, value in {**quick, **changes}.items()}


def children_of(pid: int) -> dict[int, str]:
    """Return the descendants of a process, of any session, with their command lines."""
    rows = _all_processes()
    found: dict[int, str] = {}
    while more := {child: command for child, parent, command in rows if parent in {pid, *found} and child not in found}:
        found |= more
    return found


def alive(pid: int) -> bool:
    """Return whether this process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _content(file: Any) -> str:
    # Read at a position of its own: the program writes at the file's.
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


def _all_processes() -> list[tuple[int, int, str]]:
    """Return pid, parent and command line of every process on this machine."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-Aww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
        return [(int(row[0]), int(row[1]), row[-1]) for row in rows]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # State and parent follow the name. The name may contain anything, and ends with the last bracket.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found.append((int(folder.name), parent, command))
    return found
