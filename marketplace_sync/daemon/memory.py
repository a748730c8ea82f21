"""Set up the allocators of the process, once, before there is a second thread."""

import contextlib
import ctypes
import gc

# glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# So many free bytes at the end of the heap may stay. Larger blocks are mapped on their own, and unmapped when freed.
_KEPT_BYTES, _MAPPED_BYTES = 4 * 1024 * 1024, 512 * 1024


def keep_small() -> None:
    """Return freed memory to the system, all but a little, and let garbage collection skip what exists already.

    By default every thread has an arena of its own, which keeps the most that it ever had, and both thresholds grow
    with the largest body that was received: 7 MiB more at the peak of 100,000 skills. From 1,000 to 100,000 skills the
    peak may grow by 20 MiB (`bench/report.py`), and grows by 15 to 20 with these settings. With 128 KiB for both
    thresholds the kernel had to clear the same memory again for each page and batch: on SQLite a flood took a tenth
    longer, for 1 to 2 MiB less. Where the C library is not glibc, its allocator stays as it is.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no such function, or no library to look it up in
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    # Modules and classes stay. To search them again and again took 8 % of the CPU of a full sync.
    gc.collect()
    gc.freeze()
    # Most objects of a batch are freed before so many have come together: another 8 % in a flood.
    gc.set_threshold(20_000, 10, 20)
