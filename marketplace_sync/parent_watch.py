"""`python -m marketplace_sync.parent_watch PROGRAM ARGUMENT...`: a program that ends when whoever started it is gone.

The starter holds the other end of our standard input and never writes. However it ends, a kill -9 included, the
system closes that end; then we are asked to stop as by Ctrl-C's SIGTERM, and made to when that takes too long. No
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

# What a clean stop may take, and a little more (`manage.py runsync` takes 5 s at most).
STOP_SECONDS = 8.0


def _watch() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def run(arguments: Sequence[str]) -> None:
    """Become that program."""
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
