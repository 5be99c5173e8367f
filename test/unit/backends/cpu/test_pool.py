"""The worker pool runs every step on every thread, in order, sleeps when idle and ends cleanly."""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from time import monotonic, sleep

import numpy as np
import pytest

from nybble.backends.cpu import runner as layout
from nybble.backends.cpu.codegen import jit
from nybble.backends.cpu.elf import ObjectError
from nybble.backends.cpu.loader import Library
from nybble.backends.cpu.pool import Call, Pool, PoolError, StepList, Ticks

LAUNCH = "%n: index, %pos: index, %tid: index, %nth: index"
MANY = ", ".join(f"%b{i}: memref<1xi64>" for i in range(layout.MAX_POINTERS))
MANY_LOADS = "\n".join(
    f"%v{i} = memref.load %b{i}[%c0] : memref<1xi64>\n"
    f"%i{i} = arith.constant {i} : index\nmemref.store %v{i}, %b0[%c0] : memref<1xi64>"
    for i in range(layout.MAX_POINTERS)
)

# pass_on: every thread adds 1 to what its neighbour holds and keeps it, so that a step which
# starts before the one ahead of it has finished leaves a wrong number behind.
KERNELS = f"""
func.func @arguments(%out: memref<64xi64>, {LAUNCH}) {{
  %c4 = arith.constant 4 : index
  %c1 = arith.constant 1 : index
  %at = arith.muli %tid, %c4 : index
  %at1 = arith.addi %at, %c1 : index
  %at2 = arith.addi %at1, %c1 : index
  %at3 = arith.addi %at2, %c1 : index
  %0 = arith.index_cast %n : index to i64
  %1 = arith.index_cast %pos : index to i64
  %2 = arith.index_cast %tid : index to i64
  %3 = arith.index_cast %nth : index to i64
  memref.store %0, %out[%at] : memref<64xi64>
  memref.store %1, %out[%at1] : memref<64xi64>
  memref.store %2, %out[%at2] : memref<64xi64>
  memref.store %3, %out[%at3] : memref<64xi64>
  return
}}
func.func @pass_on(%from: memref<64xi64>, %to: memref<64xi64>, {LAUNCH}) {{
  %c1 = arith.constant 1 : index
  %one = arith.constant 1 : i64
  %next = arith.addi %tid, %c1 : index
  %neighbour = arith.remui %next, %nth : index
  %x = memref.load %from[%neighbour] : memref<64xi64>
  %y = arith.addi %x, %one : i64
  memref.store %y, %to[%tid] : memref<64xi64>
  return
}}
func.func @last_of_many({MANY}, {LAUNCH}) {{
  %c0 = arith.constant 0 : index
  {MANY_LOADS}
  return
}}
func.func @nothing({LAUNCH}) {{
  return
}}"""


@pytest.fixture(scope="module")
def kernels() -> Library:
    return jit(KERNELS)


@pytest.fixture(params=[1, 2, 3, 5])
def pool(runner: Library, request: pytest.FixtureRequest) -> Iterator[Pool]:
    made = Pool(runner, request.param)
    yield made
    made.close()


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_arguments_of_every_thread(pool: Pool, kernels: Library) -> None:
    out = np.zeros((16, 4), np.int64)
    pool.run(StepList([Call(kernels.symbol("arguments"), (address(out),))]), 7, 11)
    for thread in range(pool.threads):
        assert out[thread].tolist() == [7, 11, thread, pool.threads]
    assert not out[pool.threads :].any()


def test_steps_wait_for_each_other(pool: Pool, kernels: Library) -> None:
    a, b = np.zeros(64, np.int64), np.zeros(64, np.int64)
    there = Call(kernels.symbol("pass_on"), (address(a), address(b)))
    back = Call(kernels.symbol("pass_on"), (address(b), address(a)))
    steps = StepList([there, back] * 50)
    launches = 20 if pool.threads > 2 else 200
    for _ in range(launches):
        pool.run(steps, 1, 0)
    assert a[: pool.threads].tolist() == [100 * launches] * pool.threads
    assert not a[pool.threads :].any()


def test_launch_ends_when_all_threads_are_done(pool: Pool, kernels: Library) -> None:
    out = np.zeros((16, 4), np.int64)
    call = Call(kernels.symbol("arguments"), (address(out),), barrier=False)
    for n in range(1, 100):
        pool.run(StepList([call, call]), n, 0)
        assert (out[: pool.threads, 0] == n).all()


def test_as_many_buffers_as_there_may_be(pool: Pool, kernels: Library) -> None:
    cells = np.arange(layout.MAX_POINTERS, dtype=np.int64)
    pointers = tuple(address(cells) + 8 * i for i in range(layout.MAX_POINTERS))
    pool.run(StepList([Call(kernels.symbol("last_of_many"), pointers)]), 1, 0)
    assert cells[0] == layout.MAX_POINTERS - 1
    with pytest.raises(ObjectError, match=f"kernel of 33 buffers.*{layout.MAX_POINTERS}"):
        StepList([Call(kernels.symbol("nothing"), (0,) * 33)])


def test_ticks_only_grow(pool: Pool, kernels: Library) -> None:
    steps = StepList([Call(kernels.symbol("nothing"), ())] * 9)
    ticks = Ticks(9)
    pool.run(steps, 1, 0, ticks)
    assert ticks.cells[0] > 0
    assert (np.diff(ticks.cells) >= 0).all()
    with pytest.raises(PoolError, match=r"room for 9 ticks \(accepted: 10\)"):
        pool.run(steps, 1, 0, Ticks(8))


def test_nothing_to_run(pool: Pool) -> None:
    pool.run(StepList([]), 1, 0)


def sleepers(pool: Pool) -> int:
    return ctypes.c_int64.from_address(pool._address + layout.SLEEPERS).value


def test_idle_workers_sleep_and_wake(runner: Library, kernels: Library) -> None:
    pool = Pool(runner, 3)
    out = np.zeros((16, 4), np.int64)
    steps = StepList([Call(kernels.symbol("arguments"), (address(out),))])
    for n in range(1, 4):
        patience = monotonic() + 20
        while sleepers(pool) < 2 and monotonic() < patience:
            sleep(0.001)
        assert sleepers(pool) == 2
        pool.run(steps, n, 0)
        assert (out[:3, 0] == n).all()
    pool.close()


def test_two_threads_may_launch(runner: Library, kernels: Library) -> None:
    pool = Pool(runner, 2)
    a, b = np.zeros(64, np.int64), np.zeros(64, np.int64)
    there = Call(kernels.symbol("pass_on"), (address(a), address(b)))
    back = Call(kernels.symbol("pass_on"), (address(b), address(a)))
    steps = StepList([there, back])

    def launch() -> None:
        for _ in range(500):
            pool.run(steps, 1, 0)

    callers = [threading.Thread(target=launch) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert a[:2].tolist() == [2000, 2000]
    pool.close()


def test_a_closed_pool_refuses(runner: Library) -> None:
    before = threading.active_count()
    pool = Pool(runner, 3)
    assert threading.active_count() == before + 2
    pool.close()
    pool.close()
    assert threading.active_count() == before
    with pytest.raises(PoolError, match="closed"):
        pool.run(StepList([]), 1, 0)


def test_a_collected_pool_ends_its_threads(runner: Library) -> None:
    before = threading.active_count()
    pool = Pool(runner, 3)
    del pool
    assert threading.active_count() == before


def test_a_forked_child_refuses(runner: Library) -> None:
    pool = Pool(runner, 1)  # no worker thread, so that the fork itself is harmless
    child = os.fork()
    if child == 0:
        try:
            pool.run(StepList([]), 1, 0)
        except PoolError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    pool.close()


@pytest.mark.parametrize("threads", [0, -1, layout.MAX_THREADS + 1])
def test_number_of_threads(runner: Library, threads: int) -> None:
    with pytest.raises(PoolError, match=f"{threads} threads .accepted: 1 to 256"):
        Pool(runner, threads)


def test_the_interpreter_ends_with_a_pool_alive() -> None:
    program = """
from nybble.backends.cpu.codegen import jit
from nybble.backends.cpu.machine import native
from nybble.backends.cpu.pool import Pool
from nybble.backends.cpu.runner import EXTERNALS, runner_module
pool = Pool(jit(runner_module(native().architecture), allowed=EXTERNALS), 4)
print("made")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"made\n", b"")
