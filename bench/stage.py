"""The environment of a measurement: scratch databases, processes that end with it, and figures of the machine."""

import json
import os
import resource
import secrets
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import urlsplit

from bench.market import TOKEN

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
STARTING = 60.0


class StageError(Exception):
    """A measurement failed: a process ended, or an event never happened."""


class Program:
    """One of the programs of `bench`, which exchanges JSON lines."""

    def __init__(self, module: str, *arguments: str, environment: dict[str, str]) -> None:
        self.name = " ".join((module, *arguments))
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], env=environment, cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def hear(self) -> dict[str, Any]:
        """Read the next line. Raises `StageError` when the program has ended instead."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            heard: dict[str, Any] = json.loads(line)
            return heard
        self._process.wait(10)
        raise StageError(f"{self.name} ended with {self._process.returncode}: {self.errors()[-2000:]}")

    def ask(self, **command: Any) -> dict[str, Any]:
        self.send(**command)
        return self.hear()

    def send(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def end(self) -> None:
        """Stop the program, by force if necessary, and discard its output."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        if self.running:
            self._process.kill()
        self._process.communicate()
        self._errors.close()


@dataclass
class Stage:
    """One measurement: an empty database, a folder, and programs that end with it."""

    vendor: str
    url: str
    folder: Path
    rows: Callable[[str], list[tuple[Any, ...]]]
    _ending: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def start(self, module: str, *arguments: object, **settings: object) -> Program:
        environment = {
            **os.environ, "DJANGO_ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "atomproject.settings",
            "DATABASE_URL": self.url, "REDIS_URL": "", "DJANGO_SECRET_KEY": secrets.token_hex(32),
            "LOG_LEVEL": "WARNING", **{name: str(value) for name, value in settings.items()},
        }  # fmt: skip
        program = Program(module, *map(str, arguments), environment=environment)
        self._ending.callback(program.end)
        return program

    def market(
        self, catalog: Path | None = None, messages: Path | None = None, *, compress: bool = False
    ) -> tuple[Program, dict[str, str]]:
        """Start the marketplace. Return it with its addresses."""
        program = self.start("bench.market", catalog or "", messages or "", compress)
        return program, program.hear()

    def daemon(self, where: dict[str, str], *arguments: object, **settings: object) -> Program:
        return self.start(
            "bench.daemon", self.folder / "notes.json", *arguments,
            **{
                "ATOM_SAAS_API_URL": where["api_url"], "ATOM_SAAS_API_TOKEN": TOKEN, "ATOM_SAAS_WS_RATE_LIMIT": 0,
                "ATOM_SAAS_API_REQUESTS_PER_MINUTE": 0, "ATOM_SAAS_PAGE_SIZE": 1000, **settings,
            },
        )  # fmt: skip

    def commits(self, daemon: Program) -> list[tuple[int, int]]:
        """End the daemon. Return its commits as `(nanoseconds, newest feed number)`."""
        daemon.end()
        return [(at, seq) for at, seq in json.loads((self.folder / "notes.json").read_text())]

    def until(self, true: Callable[[], Any], what: str, *programs: Program, within: float = PATIENCE) -> Any:
        """Wait until `true()`, which is called 50 times per second. Raises `StageError` when a program ends before."""
        deadline = time.monotonic() + within
        while not (answer := true()):
            for program in programs:
                if not program.running:
                    raise StageError(f"{program.name} ended before {what}: {program.errors()[-2000:]}")
            if time.monotonic() > deadline:
                output = "".join(program.errors()[-2000:] for program in programs)
                raise StageError(f"waited {within:g} s without success until {what}: {output}")
            time.sleep(0.02)
        return answer

    def state(self) -> str:
        rows = self.rows("SELECT state FROM marketplace_sync_websocketstate")
        return str(rows[0][0]) if rows else ""

    def versions(self, table: str) -> dict[str, str]:
        return dict(self.rows(f"SELECT skill_id, version FROM {table}"))  # type: ignore[arg-type]


class Databases:
    """Empty databases of one vendor, migrated once and copied for each measurement; all dropped at the end."""

    def __init__(self, server_url: str | None) -> None:
        self.vendor = "postgresql" if server_url else "sqlite"
        self._server_url = server_url
        self._made = 0
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        self._root = Path(self._ending.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        with ExitStack() as undo:
            undo.push(self._ending)
            self._name = f"bench_{os.getpid()}"
            self._template = self._create("template0")
            command = [sys.executable, "-m", "bench.plain"]
            environment = {**os.environ, "DJANGO_ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "atomproject.settings",
                           "DATABASE_URL": self._url(self._template)}  # fmt: skip
            subprocess.run(command, cwd=ROOT, env=environment, check=True)
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """Yield a stage with a database of its own for one measurement."""
        name = self._create(self._template)
        with tempfile.TemporaryDirectory(dir=self._root) as folder, ExitStack() as ending:
            ending.callback(self._drop, name)
            look = ending.enter_context(self._looking(name))
            yield ending.enter_context(Stage(self.vendor, self._url(name), Path(folder), look))

    def _url(self, name: str) -> str:
        if self._server_url is None:
            return f"sqlite:///{self._root / name}.sqlite3"
        return urlsplit(self._server_url)._replace(path=f"/{name}").geturl()

    def _create(self, template: str) -> str:
        self._made += 1
        name = f"{self._name}_{self._made}"
        if self._server_url is None:
            if self._made > 1:
                source = sqlite3.connect(self._root / f"{template}.sqlite3")
                source.execute("VACUUM INTO ?", (str(self._root / f"{name}.sqlite3"),))
                source.close()
        else:
            self._server(f"CREATE DATABASE {name} TEMPLATE {template}")
            if self._made == 1:
                self._ending.callback(self._drop, name)
        return name

    def _drop(self, name: str) -> None:
        if self._server_url is None:
            for file in self._root.glob(f"{name}.sqlite3*"):
                file.unlink()
        else:
            self._server(f"DROP DATABASE {name} WITH (FORCE)")

    def _server(self, statement: str) -> None:
        import psycopg

        assert self._server_url is not None
        with psycopg.connect(self._server_url, autocommit=True) as server:
            server.execute(statement)  # type: ignore[arg-type]

    @contextmanager
    def _looking(self, name: str) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
        if self._server_url is None:
            file = sqlite3.connect(self._root / f"{name}.sqlite3", isolation_level=None, timeout=20)
            try:
                yield lambda query: file.execute(query).fetchall()
            finally:
                file.close()
        else:
            import psycopg

            with psycopg.connect(self._url(name), autocommit=True) as server:
                yield lambda query: server.execute(query).fetchall()  # type: ignore[arg-type]


def cpu_seconds(pid: int) -> float:
    """User and system time of the process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> dict[str, float]:
    """Return the resident memory of the process now and at its peak, in MiB."""
    wanted = {"VmRSS": "now", "VmHWM": "most"}
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {wanted[line[0][:-1]]: round(int(line[1]) / 1024, 1) for line in lines if line[0][:-1] in wanted}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least, most and all of some runs."""
    return {
        "median": round(statistics.median(values), 4), "least": round(min(values), 4), "most": round(max(values), 4),
        "runs": [round(value, 4) for value in values],
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """Return the description of this machine."""
    model = ""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(), "processor": model, "memory_gib": round(memory, 1), "system": os.uname().sysname,
        "release": os.uname().release, "python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version,
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }  # fmt: skip


def raise_file_limit() -> None:
    """Raise the limit of open files: 1,000 connections are more than many shells allow."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536) if most > 0 else 65_536, most))
