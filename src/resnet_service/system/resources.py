"""Recognises errors that mean that this machine, not the input, is at fault."""

import errno

# The classes of errors that may mean it; ``is_exhaustion`` looks closer.
EXHAUSTION = (MemoryError, OSError, RuntimeError)

_ERRNOS = {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOBUFS}
# Python has no class for threads that cannot start; native libraries give a text only: the C++ library, Pillow and
# libavif, and the C library.
_TEXTS = ("can't start new thread", "bad_alloc", "bad allocation", "out of memory", "cannot allocate memory")


def is_exhaustion(error: BaseException) -> bool:
    """Return whether the error says that memory, file descriptors or threads are used up."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _ERRNOS):
        return True
    return isinstance(error, EXHAUSTION) and any(text in str(error).lower() for text in _TEXTS)
