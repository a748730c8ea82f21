"""Programs that tests start by a fork behave as programs that are really started."""

import json
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from marketplace_sync.tests.support import fork_server, processes
from marketplace_sync.tests.support.fork_server import ForkedProcess, can_fork
from marketplace_sync.tests.support.processes import MANAGE, Ended, Program, alive, run_program, until

SHOWN = """
    import json, os, signal, sys, threading
    print(json.dumps({
        "arguments": sys.argv, "environment": dict(os.environ), "folder": os.getcwd(), "path": sys.path,
        "streams": [(s.encoding, s.errors, s.line_buffering, s.isatty()) for s in (sys.stdin, sys.stdout, sys.stderr)],
        "leads_its_session": os.getsid(0) == os.getpid(), "main": __name__, "umask": os.umask(0),
        "signals": {s.name: str(signal.getsignal(s)) for s in signal.valid_signals() if hasattr(s, "name")},
        "flags": [getattr(sys.flags, name) for name in ("utf8_mode", "optimize", "dev_mode", "hash_randomization")],
        "open": sorted(n for n in os.listdir("/proc/self/fd") if int(n) > 3),
        "threads": threading.active_count(), "django": "django.conf" in sys.modules
            and sys.modules["django.conf"].settings.configured,
    }))
"""


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Ended, Ended]]:
    """Run a command by a fork and by a real start."""

    def run(*arguments: str, **settings: str) -> tuple[Ended, Ended]:
        environment = {**os.environ, **settings}
        assert can_fork([sys.executable, *arguments], environment, MANAGE.parent)
        forked = run_program([sys.executable, *arguments], environment)
        with monkeypatch.context() as patch:
            patch.setattr(processes, "can_fork", lambda *_: False)
            return forked, run_program([sys.executable, *arguments], environment)

    return run


@pytest.mark.parametrize(
    "settings",
    [
        {"MARK": "x y"},
        {"PYTHONPATH": "/a:/b"},
        {"PYTHONPATH": "/a", "PYTHONSAFEPATH": "1"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_a_program_finds_the_same_around_it(both: Callable[..., tuple[Ended, Ended]], settings: dict[str, str]) -> None:
    forked, real = both("-c", textwrap.dedent(SHOWN), "one", "two", **settings)
    assert json.loads(forked.out) == json.loads(real.out)
    assert (forked.status, forked.err) == (real.status, real.err) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        ("manage.py", "version"),
        ("manage.py", "check"),
        ("manage.py", "nothing-of-the-kind"),
        ("-m", "django", "help", "check"),
    ],
)
def test_a_command_prints_the_same_and_has_the_same_status(
    both: Callable[..., tuple[Ended, Ended]], command: tuple[str, ...]
) -> None:
    forked, real = both(*command, DATABASE_URL="sqlite:////nowhere/at/all.sqlite3")
    assert forked == real


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(7)", 7),
        ("import os; os.abort()", -signal.SIGABRT),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import atexit; atexit.register(print, 'the end'); print('begun')", 0),
        ("import threading; threading.Timer(0.1, print, ['later']).start()", 0),
    ],
)
def test_an_end_is_the_same(both: Callable[..., tuple[Ended, Ended]], code: str, status: int) -> None:
    forked, real = both("-c", code)
    assert (forked.status, forked.out) == (real.status, real.out)
    assert forked.status == status
    assert forked.err.splitlines()[-1:] == real.err.splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_and_leaves_no_process(number: signal.Signals) -> None:
    code = "import time; print('begun', flush=True); time.sleep(99)"
    program = Program([sys.executable, "-c", code], os.environ, MANAGE.parent)
    try:
        assert isinstance(program._process, ForkedProcess)
        await program.prints("begun")
        assert alive(program.pid)
        program.send(number)
        assert (await program.ended()).status == -number
        await until(lambda: not alive(program.pid), "the kernel has forgotten it")
    finally:
        program.end()


def test_what_an_interpreter_reads_before_it_runs_is_left_to_a_real_start(tmp_path: Path) -> None:
    def forked(*command: str, folder: Path = MANAGE.parent, **settings: str) -> bool:
        return can_fork(command, {**os.environ, **settings}, folder)

    python, manage = sys.executable, str(MANAGE)
    assert forked(python, manage, "check")
    assert forked(python, manage, "check", folder=tmp_path)
    assert forked(python, "-c", "pass", ATOM_SAAS_WS_URL="ws://127.0.0.1:1/")
    assert not forked("nginx", "-t")
    assert not forked(python, "-W", "error", manage)
    assert not forked(python, "-c", "pass", folder=tmp_path)
    assert not forked(python, "manage.py", folder=tmp_path)
    for name in ("PYTHONWARNINGS", "MALLOC_ARENA_MAX", "LC_ALL", "TZ"):
        assert not forked(python, manage, "check", **{name: "x"})


def test_nothing_that_is_imported_before_reads_a_setting() -> None:
    program = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='server')['_preload']()"
    ended = run_program([sys.executable, "-c", program, fork_server.__file__], {**os.environ, "PYTHONHASHSEED": "1"})
    assert ended == (0, "", "")
