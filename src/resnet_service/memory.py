"""How the C library keeps memory for a process that loads much once and then serves for months.

Both functions do nothing where the C library is not glibc.
"""

import ctypes
import gc

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 1 << 20


def keep_heap_compact() -> None:
    """Give what is freed back to the operating system; to be called before there are threads.

    By default each thread gets a heap of its own, and after the first large picture was freed, others up to 32 MB are
    kept in these heaps, where they leave holes. One heap, with large blocks outside it, serves the same load in less
    memory and no more time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _LARGE)):
            mallopt(parameter, value)


def release_freed() -> None:
    """Give back what was freed while a model was loaded: the file, and the network as it was before it was compiled."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
