"""How the C library and Python keep memory for a process that loads much once and then serves for months.

What concerns the C library does nothing where that is not glibc.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 1 << 20
# Images in work take a few megabytes at the heap's end. Were these given back after each, the next one would have to
# take them anew, a page at a time.
_KEPT = 8 << 20
_NEW_OBJECTS = 5_000


def limit_malloc_arenas() -> None:
    """Let all threads have one heap, as each by default has not; to be called before there are any, NumPy's included.

    Each heap costs memory, and what a large image leaves in one is holes there, which another cannot use.
    """
    _mallopt(_M_ARENA_MAX, 1)


def limit_heap() -> None:
    """Give what is freed back to the operating system, and share one heap where that was not said before.

    By default, after the first large image was freed, others up to 32 MB are kept in the heap. With large blocks
    outside of it, the same load is served in less memory and no more time.
    """
    limit_malloc_arenas()
    _mallopt(_M_MMAP_THRESHOLD, _LARGE)
    _mallopt(_M_TRIM_THRESHOLD, _KEPT)


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Look for no garbage in between, while packages are imported, and never among what is there at the end.

    They make more than a hundred thousand objects that live as long as the process. To go through all of these again
    and again makes the import longer; later, all threads would stand still for it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def limit_gc() -> None:
    """Look for garbage among new objects after 5,000 of them; by default, Python does after 700.

    What requests leave goes with its last reference, nearly all of it. So this costs little memory, and saves time.
    """
    gc.set_threshold(_NEW_OBJECTS)


def trim_heap() -> None:
    """Give back what was freed while a model was loaded: the file, and the network as it was before it was compiled."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _mallopt(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
