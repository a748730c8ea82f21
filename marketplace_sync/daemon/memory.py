"""What the process asks of its allocators, once, before there is a second thread."""

import contextlib
import ctypes
import gc

# glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# What lies free at the end may be as much before it is given back; larger blocks are mapped apart, and gone when freed.
_KEPT_BYTES, _APART_BYTES = 4 * 1024 * 1024, 512 * 1024


def keep_small() -> None:
    """Give back what is freed, but for a little, and look for garbage only in what comes from now on.

    Every thread would have an arena of its own, which keeps the most that it ever had; and what may be kept, and what
    is mapped apart, would grow with the largest body that came, unless it is told: 5 to 12 MiB more of a pass over
    10,000 skills. With 128 KiB for both thresholds the kernel cleared the same memory for each page and batch anew: on
    SQLite a flood took a tenth longer, for 1 to 2 MiB less. Where the C library is not glibc, it does as it does.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no such function, or no library to look it up in
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _APART_BYTES)
    # Modules and classes stay as they are: to look through them again and again was 8 % of all the CPU of a pass.
    gc.collect()
    gc.freeze()
    # And of what a batch makes, most is gone by itself before so much has come together: another 8 % in a flood.
    gc.set_threshold(20_000, 10, 20)
