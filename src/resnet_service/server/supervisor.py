"""The supervisor of a service of several processes: it starts, watches, replaces and ends them, and serves nothing."""

import contextlib
import logging
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from types import FrameType

from resnet_service.errors import ServiceError
from resnet_service.observability.logs import share_log
from resnet_service.server import worker
from resnet_service.server.process import log_address
from resnet_service.server.silence import Silence
from resnet_service.server.worker import MESSAGE_BYTES, SIGNALS, Assignment
from resnet_service.settings import Settings
from resnet_service.system.cpus import available_cpus
from resnet_service.system.shared_state import Column, SharedState

log = logging.getLogger("resnet_service")

WORKER = "resnet_service.server.worker"  # the module that each process runs
CPUS_PER_PROCESS = 4
_TICK_SECONDS = 0.1
# A worker whose event loop is silent for so long is replaced; the longer limit, where the kernel does not tell whether
# a busy machine is the reason.
_HUNG_SECONDS, _UNEXPLAINED_SECONDS = 1.0, 5.0
_START_SECONDS = 120.0
# A worker that has answered all requests ends by itself; this is longer than that takes.
_END_SECONDS = 10.0
# A worker that ends sooner after its start has failed at once; starts are then delayed, more each time.
_SOON_SECONDS = 10.0
_FIRST_DELAY, _LAST_DELAY = 0.2, 30.0
# With no worker left, the service ends after so many failures in succession.
_MAX_FAILURES = 6


def process_count(settings: Settings) -> int:
    """Return ``settings.processes``, by default one for every four CPUs; at most as many as images at once."""
    return min(settings.processes or math.ceil(available_cpus() / CPUS_PER_PROCESS), settings.worker_count)


def supervise(listener: socket.socket, settings: Settings, count: int) -> None:
    """Serve with ``count`` processes until a signal ends the service; never returns.

    Raises:
        SystemExit: SIGTERM has ended the service; the code is 0.
        KeyboardInterrupt: SIGINT has.
        ServiceError: A process could not be started, and no request was accepted; or no process stays alive.

    """
    supervisor = Supervisor(listener, settings, count)
    try:
        supervisor.run()
    finally:
        supervisor.kill()


class Worker:
    """A started process, and what the supervisor knows of it."""

    def __init__(self, index: int, process: "subprocess.Popen[bytes]", control: socket.socket, reloads: int) -> None:
        self.index, self.process, self.control = index, process, control
        self.reloads = reloads  # signals to reload that came before its start
        self.begun = time.monotonic()
        self.silence = Silence(process.pid)
        self.ready = self.retiring = self.done = False
        self.always_large = False  # it held more than a process may when it became ready
        self.failure = ""

    @property
    def ended(self) -> bool:
        """Whether it has ended, and waits to be reaped."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """End it at once. ``Popen.kill`` would reap it if it has just ended, and its CPU time would be lost."""
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)

    def send(self, message: bytes) -> None:
        """Tell it what to do."""
        with contextlib.suppress(OSError):  # it has ended or hangs, which is handled where that is noticed
            self.control.send(message)


class Supervisor:
    """Keeps ``count`` workers running; one more row of shared memory is for a worker that takes another's place."""

    def __init__(self, listener: socket.socket, settings: Settings, count: int) -> None:
        self._listener, self._settings, self._count = listener, settings, count
        self._shared = SharedState.open(count, count + 1)
        share_log(self._shared.log.lock)
        self._shared.own[Column.PID] = os.getpid()
        self._workers: list[Worker] = []
        self._free = deque(range(self._shared.rows))
        self._reloads = 0
        self._version = b""  # of the model that the latest process has loaded
        self._to_reload: deque[Worker] = deque()
        self._failures = 0
        self._next_start = 0.0
        self._signals: deque[int] = deque()
        self._ending = 0  # the signal that ends the service
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run until a signal ends the service; then raise ``SystemExit(0)``, or ``KeyboardInterrupt`` on SIGINT."""
        wake, woken = socket.socketpair()
        with wake, woken:
            for end in (wake, woken):
                end.setblocking(False)
            self._selector.register(woken, selectors.EVENT_READ, None)
            signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
            try:
                for number in SIGNALS:
                    signal.signal(number, self._queue_signal)
                self._watch(woken)
            finally:
                signal.set_wakeup_fd(-1)  # a later signal would be written into whatever has that descriptor then
        if self._ending == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(0)

    def _watch(self, woken: socket.socket) -> None:
        """Handle messages, signals and the ends of processes until none is left after a signal."""
        last = time.monotonic()
        while True:
            now = time.monotonic()
            self._tick(now, now - last)
            last = now
            if self._ending and not self._workers:
                break
            for key, _ in self._selector.select(_TICK_SECONDS):
                if key.data is None:
                    woken.recv(4096)
                else:
                    self._on_message(key.data)
            while self._signals:
                self._on_signal(self._signals.popleft())

    def kill(self) -> None:
        """End all workers at once."""
        for each in self._workers:
            each.kill()

    def _queue_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            if not self._ending and self._shared.supervisor[Column.STARTED]:
                self._reload()
        elif self._ending:
            log.warning("A second signal: exiting at once, without answering open requests.")
            self.kill()
            logging.shutdown()
            os._exit(128 + number)
        else:
            self._ending = number
            self._shared.supervisor[Column.DRAINING] = 1
            self._listener.close()  # the workers have it until they stop accepting
            for each in self._workers:
                if each.ready:
                    each.send(worker.DRAIN if number == signal.SIGTERM else worker.STOP)
                else:
                    each.kill()

    def _reload(self) -> None:
        self._reloads += 1
        ready = [each for each in self._workers if each.ready and not each.retiring]
        for each in ready:
            each.reloads = self._reloads
            each.send(worker.RELOAD_KEYS)
        idle = not self._to_reload
        # The one that reloads now may have read the file before it changed, so it is also the last again.
        self._to_reload = deque([*list(self._to_reload)[:1], *ready])
        if idle:
            self._reload_next()

    def _reload_next(self) -> None:
        if self._to_reload:
            self._to_reload[0].send(worker.RELOAD_MODEL)

    def _tick(self, now: float, seconds: float) -> None:
        for each in list(self._workers):
            if each.ended:
                self._on_exit(each)
        self._end_hung(seconds)
        for each in self._workers:
            self._watch_memory(each)
        lasting = [each for each in self._workers if not each.retiring]
        if not self._ending:
            for _ in range(self._count - len(lasting)):
                if now >= self._next_start:
                    self._start()
        self._reap_orphans()

    def _end_hung(self, seconds: float) -> None:
        """End the worker that has been silent for longest, if that is too long, or one that was stopped meanwhile."""
        for each in self._workers:
            # If this process comes late, the machine is busy or was stopped, and the workers could not run, either.
            each.silence.note(self._shared.processes.row(each.index)[Column.HEARTBEAT], min(seconds, 2 * _TICK_SECONDS))
        silent = [
            each for each in self._workers if each.silence.seconds > self._longest_silence(each) and not each.ended
        ]
        if silent:
            # The others may only wait for what a stopped one holds.
            stopped = [each for each in self._workers if each.silence.stopped]
            hung = max(stopped or silent, key=lambda each: each.silence.seconds)
            log.error("Process %d does not respond for %.1f s; it is ended.", hung.index, hung.silence.seconds)
            hung.kill()
            for each in self._workers:  # they may have waited for what it held
                each.silence.reset()

    def _longest_silence(self, each: Worker) -> float:
        if each.done:
            return _END_SECONDS
        if each.ready:
            return _HUNG_SECONDS if each.silence.explained else _UNEXPLAINED_SECONDS
        return _START_SECONDS if self._shared.supervisor[Column.STARTED] else math.inf

    def _watch_memory(self, each: Worker) -> None:
        bound = self._settings.max_process_bytes
        if not bound or not each.ready or each.always_large:
            return
        settled = not self._ending and all(other.ready and not other.retiring for other in self._workers)
        if settled and self._free and _resident_bytes(each.process.pid) > bound:
            log.warning("Process %d holds more than %d bytes; another takes its place.", each.index, bound)
            # It serves until the other is ready.
            each.retiring = True

    def _start(self) -> None:
        """Start a process; if the system does not allow it now, try again later."""
        try:
            started = self._started(self._free[0])
        except OSError as error:
            if not self._shared.supervisor[Column.STARTED]:
                raise ServiceError(f"A process could not be started: {error.strerror}.") from error
            log.error("A process could not be started: %s", error.strerror)
            self._delay_starts(f"it could not be started: {error.strerror}", at_once=True)
            return
        self._free.popleft()
        self._workers.append(started)
        self._selector.register(started.control, selectors.EVENT_READ, started)

    def _started(self, index: int) -> Worker:
        shared, listener = self._shared.descriptors, self._listener.fileno()
        assignment = Assignment(self._share(), index, self._count, listener, shared)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            with theirs, assignment.written() as file:
                given = (theirs.fileno(), file.fileno())
                # Until the worker ignores them, signals to the whole group wait.
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                try:
                    process = subprocess.Popen(  # noqa: S603 - our own module
                        [sys.executable, "-m", WORKER, *map(str, given)],
                        stdin=subprocess.DEVNULL,
                        stderr=subprocess.STDOUT if sys.__stderr__ is None else None,  # as the log of this process
                        pass_fds=(*given, listener, *shared),
                    )
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        except OSError:
            ours.close()
            raise
        return Worker(index, process, ours, self._reloads)

    def _share(self) -> Settings:
        """Return the settings of the next process: its share of what all have together."""
        workers, earlier = self._settings.worker_count, len([each for each in self._workers if not each.retiring])
        return self._settings.model_copy(
            update={
                "workers": max(1, workers // self._count + (earlier < workers % self._count)),
                "max_connections": math.ceil(self._settings.max_connections / self._count),
            }
        )

    def _on_message(self, each: Worker) -> bool:
        """Handle the next message of a worker, and return whether there was one."""
        try:
            message = each.control.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            message = b""
        if not message:
            self._selector.unregister(each.control)
        elif message.startswith(worker.READY):
            self._on_ready(each, message.removeprefix(worker.READY))
        elif message == worker.DONE:
            each.done = True
        elif message.startswith(worker.FAILED):
            each.failure = message.removeprefix(worker.FAILED).decode(errors="replace")
        elif self._to_reload and self._to_reload[0] is each:
            if message.startswith(worker.RELOADED):
                self._version = message.removeprefix(worker.RELOADED)
                self._to_reload.popleft()
                self._reload_next()
            else:
                log.error("The reload ends here; the processes that have not reloaded keep the old model.")
                self._to_reload.clear()
        return bool(message)

    def _on_ready(self, each: Worker, version: bytes) -> None:
        if self._ending or each.process.returncode is not None:  # it is being ended, or has ended
            return
        each.ready = True
        each.silence.reset()
        self._note_size(each)
        if each.reloads != self._reloads:
            each.send(worker.RELOAD_KEYS)
            self._to_reload.append(each)
            if len(self._to_reload) == 1:
                self._reload_next()
        elif self._version not in (b"", version):
            log.warning("Process %d serves another model, since the file has changed; all reload.", each.index)
            self._reload()
        self._version = version
        for other in self._workers:
            if other.retiring:
                other.send(worker.RETIRE)
        lasting = [other for other in self._workers if other.ready and not other.retiring]
        if len(lasting) == self._count and not self._shared.supervisor[Column.STARTED]:
            self._shared.supervisor[Column.STARTED] = 1
            log_address(self._listener)

    def _note_size(self, each: Worker) -> None:
        """Exempt a process from replacement that is too large from the start: its successor would be, too."""
        bound, size = self._settings.max_process_bytes, _resident_bytes(each.process.pid)
        each.always_large = bool(bound) and size > bound
        if each.always_large:
            log.warning(
                "Process %d is ready and holds %d bytes, more than --max-process-bytes; it is not replaced for that.",
                each.index,
                size,
            )

    def _on_exit(self, each: Worker) -> None:
        """Reap a worker that has ended, forget it, and decide when another takes its place."""
        if not self._reap(each):
            return  # the next tick tries again
        self._shared.release(each.index)
        self._close_control(each)
        self._workers.remove(each)
        self._free.append(each.index)
        self._leave_reload(each)
        if not self._ending and not each.retiring:
            self._on_unexpected_exit(each)

    def _reap(self, each: Worker) -> bool:
        """Reap a worker and keep its CPU time; return False if a process, which may hang, holds the lock for that."""
        row = self._shared.processes.row(each.index)
        with self._shared.processes.lock.attempted() as locked:
            if not locked:
                return False
            _, status, usage = os.wait4(each.process.pid, 0)
            dead_cpu = row[Column.DEAD_CPU] + usage.ru_utime + usage.ru_stime
            for column in Column:
                row[column] = 0
            row[Column.DEAD_CPU] = dead_cpu
        each.process.returncode = os.waitstatus_to_exitcode(status)
        return True

    def _close_control(self, each: Worker) -> None:
        """Read what a worker has still said, such as the reason of its end, and close its control socket."""
        if each.control in self._selector.get_map():
            while self._on_message(each):
                pass
        # Another process that it started may still have its end, so there is not always an end to read.
        if each.control in self._selector.get_map():
            self._selector.unregister(each.control)
        each.control.close()

    def _leave_reload(self, each: Worker) -> None:
        """Continue a reload without a worker that has ended."""
        if each in self._to_reload:
            first = self._to_reload[0] is each
            self._to_reload = deque(other for other in self._to_reload if other is not each)
            if first:
                self._reload_next()

    def _on_unexpected_exit(self, each: Worker) -> None:
        """Decide when a worker takes the place of one that ended unasked."""
        reason = each.failure or f"it ended with {each.process.returncode}"
        if not self._shared.supervisor[Column.STARTED]:
            raise ServiceError(
                each.failure or f"Process {each.index} ended with {each.process.returncode} while it started."
            )
        self._shared.supervisor[Column.RESTARTS] += 1
        self._delay_starts(reason, at_once=time.monotonic() - each.begun < _SOON_SECONDS)
        log.error("Process %d is replaced: %s", each.index, reason)

    def _delay_starts(self, reason: str, *, at_once: bool) -> None:
        """Delay the next start after failures in succession; ``at_once`` tells whether this is another one."""
        self._failures = self._failures + 1 if at_once else 0
        if self._failures >= _MAX_FAILURES and not any(other.ready for other in self._workers):
            raise ServiceError(f"No process stays alive; the last one: {reason}")
        if self._failures > 1:
            self._next_start = time.monotonic() + min(_LAST_DELAY, _FIRST_DELAY * 2 ** (self._failures - 2))

    def _reap_orphans(self) -> None:
        """Reap what others have left to this process, which is the first one in a container."""
        if os.getpid() != 1:
            return
        ours = {each.process.pid for each in self._workers}
        with contextlib.suppress(ChildProcessError):  # there is none, not even a worker
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in ours:
                    break
                os.waitpid(ended.si_pid, 0)


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
