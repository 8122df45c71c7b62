"""Settings of glibc's allocator and of Python's garbage collector for a long-running server.

The settings of the allocator do nothing where the C library is not glibc.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MMAP_BYTES = 1 << 20
# An image takes a few megabytes at the heap's end while it is processed. Returning them after each image would make the
# next one fault them in again, page by page.
_TRIM_BYTES = 8 << 20
_NEW_OBJECTS = 5_000


def limit_malloc_arenas() -> None:
    """Make all threads share one heap; call it before any thread starts, NumPy's included.

    By default, glibc gives threads heaps of their own. Each costs memory, and memory that an image frees in one cannot
    be used by another.
    """
    _mallopt(_M_ARENA_MAX, 1)


def limit_heap() -> None:
    """Return freed memory to the operating system, and make all threads share one heap.

    By default, once a large block has been freed, glibc keeps later ones of up to 32 MB in the heap. With large blocks
    outside the heap, the same load takes less memory and no more time.
    """
    limit_malloc_arenas()
    _mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    _mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Disable garbage collection inside the block, and exempt the objects that exist at its end from all later ones.

    Imports make more than a hundred thousand objects that live as long as the process. Traversing them again and again
    makes the imports slower, and later stops all threads.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def limit_gc() -> None:
    """Collect garbage among new objects after 5,000 of them; Python's default is 700.

    Reference counting frees nearly all objects of a request, so a higher threshold saves time and costs little memory.
    """
    gc.set_threshold(_NEW_OBJECTS)


def trim_heap() -> None:
    """Return the memory that loading a model has freed: the file's bytes, and the network before its compilation."""
    gc.collect()
    trim_freed()


def trim_freed() -> None:
    """Return freed memory that lies between blocks in use, which glibc itself keeps. It takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _mallopt(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
