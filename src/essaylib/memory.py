"""Keep freed memory in the process, where the C library would give it back.

The layers of a network ask for tensors of tens of megabytes and free them at once. glibc takes each
from the system and returns it, and the system fills every page with zeros before it hands it out:
on one core that can be half of the time of a decode (`benchmarks/allocator.py`).
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

# The names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST_INT, _PAD = 2**31 - 1, 64 * 2**20


@lru_cache(maxsize=1)
def keep_freed() -> bool:
    """Let freed memory wait in the process for the next tensor; return whether it will.

    Does nothing, and returns False, where the C library is not glibc (macOS, Windows, musl).
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    # No allocation from outside of the heap, no return of its end, and growth in large steps.
    wishes = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _LARGEST_INT, _M_TOP_PAD: _PAD}
    return all([libc.mallopt(option, value) for option, value in wishes.items()])
