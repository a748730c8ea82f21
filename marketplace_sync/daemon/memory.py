"""What the process asks of its allocators, once, before there is a second thread."""

import contextlib
import ctypes
import gc

# glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 128 * 1024


def keep_small() -> None:
    """Give back what is freed, and look for garbage only in what comes from now on.

    Of the daemon's memory at its most, 10,000 skills on SQLite, this is 10 MiB; it costs no CPU that could be measured.
    Every thread would have an arena of its own, which keeps the most that it ever had; and the thresholds for what
    is given back grow with the largest body that came. Where the C library is not glibc, it does as it does.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no such function, or no library to look it up in
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    # Modules and classes stay as they are: to look through them again and again was 8 % of all the CPU of a pass.
    gc.collect()
    gc.freeze()
