"""Where the log goes, such that it cannot hold up the service."""

import os
import select

# As many bytes as a pipe takes at once or not at all; that there is room for them is what polling says.
_AT_ONCE = select.PIPE_BUF


class LogStream:
    """A text stream onto a file descriptor that loses what cannot be written now.

    A log collector that hangs does not empty its pipe any more. Once the pipe is full, each writer stands still, and
    with it the event loop: the service would be dead because nobody reads that it lives. How many lines were lost is
    the first line that is written again.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lost = 0

    def write(self, text: str) -> int:
        """Write ``text``, or lose it, at once; return its length, as streams do."""
        if self._lost and self._written(f"WARNING {self._lost} log messages were lost: nobody read the log.\n"):
            self._lost = 0
        if self._lost or not self._written(text):
            self._lost += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing; nothing is kept."""

    def _written(self, text: str) -> bool:
        data = text.encode(errors="backslashreplace")
        try:
            for start in range(0, len(data), _AT_ONCE):
                if not self._poll.poll(0):
                    return False
                os.write(self._descriptor, data[start : start + _AT_ONCE])
        except OSError:  # its reader has gone
            return False
        return True
