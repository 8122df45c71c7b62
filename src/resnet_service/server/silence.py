"""How long a process has been silent although it could have answered, which tells a hang from a busy machine."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Shorter silence is common, and not looked into.
_COMMON_SECONDS = 0.3


class Silence:
    """The seconds since a process's last heartbeat, without those in which one of its threads waited for the machine.

    Any thread counts, not only that of the event loop: one that waits for a CPU may hold the interpreter lock.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._heartbeat = 0.0
        self.reset()

    def reset(self) -> None:
        """Begin to count from now."""
        self.seconds = 0.0
        self._threads: dict[str, _Thread] = {}

    def note(self, heartbeat: float, seconds: float) -> None:
        """Take the latest heartbeat, and the seconds since this was called before."""
        if heartbeat != self._heartbeat:
            self._heartbeat = heartbeat
            self.reset()
            return
        if self.seconds > _COMMON_SECONDS:
            before, self._threads = self._threads, _threads(self._pid)
            waits = [
                after.waited_since(before[name], seconds) for name, after in self._threads.items() if name in before
            ]
            seconds -= max(waits, default=0.0)
        self.seconds += max(0.0, seconds)

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped the process, once it has been silent for longer than is common."""
        return any(thread.state in "Tt" for thread in self._threads.values())

    @property
    def explained(self) -> bool:
        """Whether the kernel tells how long threads waited; some sandboxes do not."""
        return bool(self._threads)


class _Thread(NamedTuple):
    state: str
    ran: int  # nanoseconds
    waited: int  # nanoseconds spent runnable but not running

    def waited_since(self, before: "_Thread", seconds: float) -> float:
        """Return for how many of the last ``seconds`` it waited for a CPU, or for a disk."""
        # What it waits now is not counted before it ends.
        waits_now = self.state in "RD" and self[1:] == before[1:]
        return seconds if waits_now else (self.waited - before.waited) / 1e9


def _threads(pid: int) -> dict[str, _Thread]:
    found = {}
    with suppress(OSError):  # a thread or the process has ended, or the kernel does not tell
        for folder in Path(f"/proc/{pid}/task").iterdir():
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            ran, waited, _ = (folder / "schedstat").read_text().split()
            found[folder.name] = _Thread(state, int(ran), int(waited))
    return found
