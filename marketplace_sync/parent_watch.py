"""Run a program that ends with its parent: `python -m marketplace_sync.parent_watch PROGRAM ARGUMENT...`.

The parent has the other end of our standard input and never writes. However the parent ends, a kill -9 included, the
system closes that end. Then this process gets a SIGTERM, and is killed if it takes too long to stop. This needs no
process of its own, and nothing that only one operating system has.

PROGRAM is a Python file, or `-m` and a module.
"""

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence

# The time of a clean stop (`manage.py runsync` takes 5 s at most), and a little more.
STOP_SECONDS = 8.0


def _watch() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def run(arguments: Sequence[str]) -> None:
    """Become the program that `arguments` name."""
    threading.Thread(target=_watch, name="parent_watch", daemon=True).start()
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = os.path.dirname(arguments[0])
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    run(sys.argv[1:])
