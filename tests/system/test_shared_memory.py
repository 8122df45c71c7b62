"""Numbers and a budget that several processes share."""

import signal
import subprocess
import sys
import threading
import time

from resnet_service.system.budget import SharedBudget
from resnet_service.system.shared_memory import SharedTable
from resnet_service.system.shared_state import Column, SharedState

COUNT = """
import sys
from resnet_service.system.shared_memory import SharedTable
table = SharedTable(3, 2, int(sys.argv[1]))
mine, shared = table.row(int(sys.argv[2])), table.row(0)
for _ in range(2000):
    mine[1] += 1
    with table.lock:
        shared[0] += 1
"""

HOLD = """
import sys, time
from resnet_service.system.budget import SharedBudget
from resnet_service.system.shared_memory import SharedTable
budget = SharedBudget(100, SharedTable(2, 1, int(sys.argv[1])), 1)
assert budget.try_acquire(80)
print("held", flush=True)
time.sleep(60)
"""

CONTEND = """
import sys, time
from resnet_service.system.budget import SharedBudget
from resnet_service.system.shared_memory import SharedTable
budget = SharedBudget(1, SharedTable(2, 1, int(sys.argv[1])), int(sys.argv[2]))
exceeded = 0
end = time.monotonic() + 1
while time.monotonic() < end:
    if budget.try_acquire(1):
        exceeded += budget.used > 1
        budget.release(1)
print(exceeded)
"""

WAIT = """
import sys
from resnet_service.system.budget import SharedBudget
from resnet_service.system.shared_memory import SharedTable
budget = SharedBudget(100, SharedTable(2, 1, int(sys.argv[1])), 1)
print("waits", flush=True)
assert budget.acquire(100, 30)
print("has it", flush=True)
budget.release(100)
"""

DIE = """
import os, signal, sys
from resnet_service.system.shared_memory import SharedTable
with SharedTable(1, 1, int(sys.argv[1])).lock:
    os.kill(os.getpid(), signal.SIGKILL)
"""


TWO = """
import sys, threading, time
from resnet_service.system.shared_memory import SharedTable

def use(table):
    for _ in range(200):
        with table.lock:
            time.sleep(0.0005)

threads = [threading.Thread(target=use, args=(SharedTable(1, 1, int(one)),)) for one in sys.argv[1:]]
for thread in threads:
    thread.start()
"""


def child(program: str, *arguments: object, descriptor: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(descriptor), *map(str, arguments)],
        pass_fds=(descriptor,),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_threads_of_two_processes_that_use_two_locks_are_no_deadlock() -> None:
    """With record locks, ``lockf`` failed here: their owner is the process, whichever thread waits."""
    tables = [SharedTable(1, 1) for _ in range(2)]
    descriptors = [table.descriptor for table in tables]
    command = [sys.executable, "-c", TWO, *map(str, descriptors)]
    processes = [subprocess.Popen(command, pass_fds=descriptors, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in processes] == ["", ""]


def test_processes_count_without_losing_one() -> None:
    table = SharedTable(3, 2)
    children = [child(COUNT, row, descriptor=table.descriptor) for row in (1, 2)]
    for process in children:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert table.row(1)[1] == table.row(2)[1] == 2000
    assert table.row(0)[0] == table.sum(0) == 4000  # only the lock makes this exact
    assert table.sum(1) == 4000


def test_what_a_dead_process_held_comes_back_with_its_row() -> None:
    table = SharedTable(2, 1)
    budget = SharedBudget(100, table, 0)
    process = child(HOLD, descriptor=table.descriptor)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert budget.used == 80
    assert not budget.try_acquire(30)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert not budget.try_acquire(30)
    table.row(1)[0] = 0
    assert budget.try_acquire(30)


def test_processes_never_hold_more_than_the_limit() -> None:
    table = SharedTable(2, 1)
    children = [child(CONTEND, row, descriptor=table.descriptor) for row in range(2)]
    assert [process.communicate(timeout=60)[0] for process in children] == ["0\n", "0\n"]


def budget_for_which_another_waits() -> tuple[SharedBudget, subprocess.Popen[str]]:
    """Return a budget of 100, 50 of it taken, and a process that waits for more than what is left."""
    table = SharedTable(2, 1)
    budget = SharedBudget(100, table, 0)
    assert budget.try_acquire(50)
    process = child(WAIT, descriptor=table.descriptor)
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    time.sleep(0.1)
    return budget, process


def test_no_process_overtakes_another_that_waits() -> None:
    budget, process = budget_for_which_another_waits()
    assert not budget.acquire(10, 0.1)
    budget.release(50)
    assert process.communicate(timeout=20)[0] == "has it\n"
    assert budget.acquire(10, 0)


def test_a_process_that_dies_gives_up_its_turn() -> None:
    budget, process = budget_for_which_another_waits()
    assert not budget.acquire(10, 0.1)
    process.kill()
    process.communicate(timeout=20)
    assert budget.acquire(10, 5)


def test_a_process_that_dies_within_the_lock_releases_it() -> None:
    table = SharedTable(1, 1)
    child(DIE, descriptor=table.descriptor).communicate(timeout=20)
    locked = threading.Event()

    def lock() -> None:
        with table.lock:
            locked.set()

    threading.Thread(target=lock, daemon=True).start()
    assert locked.wait(5)


def test_a_budget_waits_for_what_others_release() -> None:
    budget = SharedBudget(100)
    assert budget.acquire(70, 1)
    begun = time.monotonic()
    assert not budget.acquire(40, 0.05)
    assert time.monotonic() - begun >= 0.05
    threading.Timer(0.1, budget.release, (70,)).start()
    assert budget.acquire(40, 10)
    assert budget.used == 40


def test_threads_never_hold_more_than_the_limit() -> None:
    budget = SharedBudget(3)
    exceeded = []

    def work() -> None:
        for _ in range(50):
            assert budget.acquire(2, 10)
            if budget.used > 3:
                exceeded.append(budget.used)
            budget.release(2)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert not exceeded
    assert budget.used == 0


def test_the_service_is_ready_while_at_most_one_process_is_not() -> None:
    state = SharedState.open(3, 0)
    rows = [state.processes.row(index) for index in range(3)]
    for row in rows:
        row[Column.READY] = 1
    assert not state.ready, "not all of them have been ready yet"
    state.supervisor[Column.STARTED] = 1
    assert state.ready
    rows[0][Column.READY] = 0
    assert state.ready
    rows[1][Column.READY] = 0
    assert not state.ready
    rows[1][Column.READY] = state.supervisor[Column.DRAINING] = 1
    assert not state.ready
