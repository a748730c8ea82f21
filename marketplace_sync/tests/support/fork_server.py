"""Start programs of the tests by a fork of a process that has the imports behind it.

A program of this project needs 1.2 s of CPU to start, of which 0.9 s are imports that no setting changes; the tests
start some 300 programs. So each pytest process starts one fork server, this file, which does those imports once. It
forks for each program, and the fork takes over the environment, the folder, the arguments and the standard streams
that a real start would have. What reads a setting, `django.setup` above all, is done by the program, as always.

A program forked like this is a process with a pid, a session and an exit status of its own: it can be killed with
kill -9, and ends as an interpreter ends. What differs is its command line in /proc, and what an interpreter reads
before it runs: `can_fork` leaves such starts to a real exec.
"""

import atexit
import codecs
import contextlib
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

PROJECT = Path(__file__).resolve().parents[3]
# Emitted by `sys.audit` for each fork. The tests without processes are watched by it (tests/conftest.py).
AUDIT_EVENT = "marketplace_sync.tests.fork"
# Importing them reads no setting and no environment.
_LIBRARIES = (
    "channels.layers", "django.contrib.admindocs.views", "django.core.management.commands.check",
    "django.db.backends.postgresql.base", "django.db.backends.sqlite3.base", "django.test",
    "django.views.decorators.http", "django_filters", "drf_spectacular.utils", "environ", "httpx2", "prometheus_client",
    "psycopg", "redis.asyncio", "rest_framework.authentication", "rich.console", "rich.traceback", "structlog",
    "uvicorn", "uvicorn.protocols.http.h11_impl", "uvicorn.protocols.websockets.websockets_sansio_impl", "whitenoise",
)  # fmt: skip
_PURE_PACKAGES = ("engine", "protocol", "simulator", "upstream")
# Read by the interpreter or the C library before the first line of Python.
_EARLY = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_", "TZ")
# Of those, what a fork can make up for.
_MADE_UP_FOR = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONIOENCODING")
_OPTIONS = ("-c", "-m")


class ForkedProcess:
    """A program that the fork server has started, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or `None` while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._read()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit status. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self._read()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal unless the program has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL unless the program has ended."""
        self.send_signal(signal.SIGKILL)

    def _read(self) -> None:
        self.returncode = int(_line(self._status))
        self._status.close()


def can_fork(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> bool:
    """Return whether a fork of the server does what a start of this command would do."""
    if not hasattr(os, "fork") or len(command) < 2 or command[0] != sys.executable:
        return False
    if command[1] in _OPTIONS:
        if folder.resolve() != PROJECT:
            return False
    elif command[1].startswith("-") or not (folder / command[1]).is_file():
        return False
    return _early(environment) == _early(os.environ)


def fork(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, *, stdin: int, stdout: int, stderr: int
) -> ForkedProcess:
    """Start a command that `can_fork`, with these file descriptors, in a session of its own."""
    sys.audit(AUDIT_EVENT, command)
    ours, theirs = socket.socketpair()
    order = json.dumps({"arguments": command[1:], "environment": dict(environment), "folder": str(folder)}).encode()
    with theirs, _sending:
        server = _server()
        socket.send_fds(server, [len(order).to_bytes(8, "big")], [stdin, stdout, stderr, theirs.fileno()])
        server.sendall(order)
    return ForkedProcess(int(_line(ours)), ours)


_servers: dict[int, socket.socket] = {}
_sending = threading.Lock()


def _server() -> socket.socket:
    """Return the connection to the server of this process. The first call starts it."""
    if os.getpid() not in _servers:
        ours, theirs = socket.socketpair()
        with theirs:
            server = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], cwd=PROJECT, pass_fds=[theirs.fileno()],
                env={name: value for name, value in os.environ.items() if name not in _MADE_UP_FOR},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        _servers[os.getpid()] = ours
        atexit.register(_end, ours, server)
    return _servers[os.getpid()]


def _end(connection: socket.socket, server: subprocess.Popen[bytes]) -> None:
    """Let the server end with its connection."""
    connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(5)


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_EARLY) and name not in _MADE_UP_FOR}


def _line(connection: socket.socket) -> bytes:
    """Read up to the end of the line, byte by byte: what follows is not ours to take."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("The fork server has ended; what it wrote is on stderr.")
        line += byte
    return line


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = connection.recv(size - len(content))
        if not more:
            raise ConnectionError("The order ends before its length.")
        content += more
    return content


# The rest runs in the server and its forks.


def _preload() -> None:
    for name in _LIBRARIES:
        importlib.import_module(name)
    for name in _PURE_PACKAGES:
        package = importlib.import_module(f"marketplace_sync.{name}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    from django.conf import settings

    assert not settings.configured, "what is imported here must not read a setting"


def _orders(connection: socket.socket) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield each order with its descriptors: the standard streams, and where the pid and the exit status go."""
    while True:
        size, descriptors, _, _ = socket.recv_fds(connection, 8, 4)
        if not size:
            return
        yield json.loads(_exactly(connection, int.from_bytes(size, "big"))), descriptors


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for each order. Returns in each program, with its order; the server itself ends with its connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the watchers
    for order, descriptors in _orders(connection):
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            pid = os.fork()
            if pid == 0:
                connection.close()
                return order | {"descriptors": descriptors}
            _watch(pid, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    os._exit(0)


def _watch(pid: int, descriptors: list[int]) -> NoReturn:
    """Report the pid of a program, wait for its end and report the exit status."""
    report = descriptors.pop()
    for descriptor in descriptors:
        os.close(descriptor)
    os.write(report, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # nobody waits any more
        os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(order: dict[str, Any]) -> list[str]:
    """Turn this fork into the program that was ordered, and return its arguments."""
    os.setsid()
    for number, descriptor in enumerate(order["descriptors"][:3]):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(order["environment"])
    if encoding := os.environ.get("PYTHONIOENCODING"):
        for stream, errors in ((sys.stdin, None), (sys.stdout, None), (sys.stderr, "backslashreplace")):
            stream.reconfigure(encoding=codecs.lookup(encoding).name, errors=errors)  # type: ignore[union-attr]
    os.chdir(order["folder"])
    arguments: list[str] = order["arguments"]
    return arguments


def _run(arguments: list[str]) -> None:
    """Run a script, `-m MODULE` or `-c CODE` as the interpreter does."""
    first, *rest = arguments
    if first == "-c":
        sys.argv[:] = arguments[:1] + rest[1:]
        _prepend("")
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    elif first == "-m":
        sys.argv[:] = arguments[1:]
        _prepend(os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = arguments
        _prepend(str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")


def _prepend(folder: str) -> None:
    """Put the program's own folder and PYTHONPATH before the libraries, as the interpreter does."""
    added = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = added if os.environ.get("PYTHONSAFEPATH") else [folder, *added]


if __name__ == "__main__":
    sys.path[0] = str(PROJECT)
    _preload()
    del sys.path[0]
    import gc

    gc.collect()
    gc.freeze()  # what is loaded stays shared with the forks
    _run(_become(_serve(socket.socket(fileno=int(sys.argv[1])))))
