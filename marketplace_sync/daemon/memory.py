"""What the process asks of its allocators, once, before there is a second thread."""

import contextlib
import ctypes
import gc

# glibc's <malloc.h>
_M_TRIM_THRESHOLD, _M_ARENA_MAX = -1, -8
_KEPT_BYTES = 128 * 1024


def keep_small() -> None:
    """Give back what is freed, and look for garbage only in what comes from now on.

    Every thread would have an arena of its own, which keeps the most that it ever had; and what may be kept, and what
    is mapped apart, would grow with the largest body that came, unless it is told. Together 5 to 12 MiB of a pass over
    10,000 skills, for no CPU that could be measured. Where the C library is not glibc, it does as it does.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no such function, or no library to look it up in
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    # Modules and classes stay as they are: to look through them again and again was 8 % of all the CPU of a pass.
    gc.collect()
    gc.freeze()
    # And of what a batch makes, most is gone by itself before so much has come together: another 8 % in a flood.
    gc.set_threshold(20_000, 10, 20)
