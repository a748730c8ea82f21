"""Fork daemons from a process that has imported everything.

Each daemon is a separate process with a separate number, to be killed, paused and stopped like any other; only
the 2 s that Django takes to start are spent once. Run as `python -m marketplace_sync.tests.chaos.nursery`;
it
reads orders as lines of JSON, and writes the number of each daemon and later its end in the same way.

The clocks that are no settings, above all those of the lease, run `TEMPO` times as fast here, so that a run takes
seconds and not minutes. The product has no such switch.
"""

import importlib
import json
import os
import pkgutil
import random
import select
import signal
import sys
import traceback
from typing import Any

TEMPO = 10.0
# Every clock that is no setting and that a run must not wait for, with its module.
CLOCKS = (
    "LEASE_SECONDS", "RENEW_SECONDS", "STANDBY_SECONDS", "DEAD_AFTER_SECONDS", "_STANDBY_LOOKS_EVERY",
    "RETRY_DELAYS", "GAP_MAX_WAIT_SECONDS",
)  # fmt: skip


def quicken() -> None:
    """Divide the clocks by `TEMPO`, in every module of the app that has imported them."""
    unfound = set(CLOCKS)
    for name, module in list(sys.modules.items()):
        if name.startswith("marketplace_sync.") and not name.startswith("marketplace_sync.tests."):
            for clock in CLOCKS:
                if clock in vars(module):
                    slow = vars(module)[clock]
                    quick = tuple(one / TEMPO for one in slow) if isinstance(slow, tuple) else slow / TEMPO
                    setattr(module, clock, quick)
                    unfound.discard(clock)
    if unfound:
        raise RuntimeError(f"no module has {', '.join(sorted(unfound))} any more: correct CLOCKS")


def import_all() -> None:
    """Import every module of the app, so that none is imported later with unchanged clocks."""
    import marketplace_sync

    for found in pkgutil.walk_packages(marketplace_sync.__path__, "marketplace_sync."):
        if not found.name.startswith(("marketplace_sync.tests", "marketplace_sync.migrations")):
            importlib.import_module(found.name)


def main() -> None:
    import django

    django.setup()
    import_all()
    quicken()
    # A child that ends wakes the select.
    waker, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    orders = sys.stdin.fileno()
    waiting = b""
    _write_line({"ready": os.getpid()})
    while True:
        ready, _, _ = select.select([orders, waker], [], [])
        if waker in ready:
            os.read(waker, 4096)
            _reap()
        if orders in ready:
            data = os.read(orders, 65_536)
            if not data:
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                _write_line({"pid": _fork(json.loads(line))})


def _write_line(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _write_line({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        _become(order)
        status = _daemon(order)
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:  # noqa: BLE001 - the parent must go on; Python would print the same
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _become(order: dict[str, Any]) -> None:
    """Leave the nursery: get a new session, files, signals and random seed."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 1024)
    random.seed()


def _daemon(order: dict[str, Any]) -> int:
    from django.conf import settings
    from django.core.management import execute_from_command_line
    from django.db import connections

    for name, value in order["settings"].items():
        setattr(settings, name, value)
    if order["database_port"]:
        connections.settings["default"]["PORT"] = order["database_port"]
    execute_from_command_line(["manage.py", *order["arguments"]])
    return 0


if __name__ == "__main__":
    main()
