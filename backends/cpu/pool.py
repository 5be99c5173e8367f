"""Worker threads that sit in generated code (runner.py) and run the steps of a plan together.

A worker is a Python thread that calls `nybble_worker` once and so holds no lock of Python's. It
spins for about a millisecond after its last work and then sleeps in the kernel: an idle pool takes
no processor time. Threads do not survive a fork: a pool made before one refuses to run in a child.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu import runner
from nybble.backends.cpu.elf import ObjectError
from nybble.backends.cpu.host import allocate
from nybble.backends.cpu.loader import Library
from nybble.dialects.errors import NybbleError


class PoolError(NybbleError):
    """A number of threads that cannot be, or a pool used where it does not live."""


@dataclass(frozen=True)
class Call:
    """One step: `function` (an address) is called with `pointers` (addresses), n, pos, tid, nth.

    barrier: whether all threads meet after it, so that a later step may read what it wrote.
    """

    function: int
    pointers: tuple[int, ...]
    barrier: bool = True


class StepList:
    """Calls in the form that the runner reads; the memory they point to is the caller's to keep."""

    def __init__(self, calls: list[Call]) -> None:
        self.steps = np.zeros((len(calls), runner.STEP_CELLS), np.int64)
        self._slots: list[NDArray[np.uint64]] = []
        for row, call in zip(self.steps, calls, strict=True):
            if len(call.pointers) > runner.MAX_POINTERS:
                raise ObjectError(
                    f"a kernel of {len(call.pointers)} buffers", accepted=f"{runner.MAX_POINTERS}"
                )
            slots = np.array(call.pointers, np.uint64)
            self._slots.append(slots)
            row[:] = call.function, slots.ctypes.data, len(call.pointers), call.barrier
        if calls:
            self.steps[-1, -1] = True  # a launch is done when all threads are

        self.count = len(calls)
        self.address = self.steps.ctypes.data


class Ticks:
    """cells: i64 [steps + 1], the cycle counter before the first step and after each."""

    def __init__(self, steps: int) -> None:
        self.cells = np.zeros(steps + 1, np.int64)
        self.address = self.cells.ctypes.data


class Pool:
    """`threads` threads, the caller of `run` being one of them. Close it, or let it be collected.

    library: a loaded runner module.
    """

    def __init__(self, library: Library, threads: int) -> None:
        if not 1 <= threads <= runner.MAX_THREADS:
            raise PoolError(f"{threads} threads", accepted=f"1 to {runner.MAX_THREADS}")
        self.threads = threads
        control = allocate(runner.control_bytes(threads))
        self._address = control.ctypes.data
        self._owner = os.getpid()
        self._lock = threading.Lock()
        pointer, cell = ctypes.c_void_p, ctypes.c_int64
        launch = ctypes.CFUNCTYPE(None, pointer, pointer, cell, cell, cell, cell, pointer)
        work = ctypes.CFUNCTYPE(None, pointer, cell)(library.symbol("nybble_worker"))
        launch_at = launch(library.symbol("nybble_launch"))
        self._launch = launch_at
        workers = [
            threading.Thread(
                target=work, args=(self._address, index), name=f"nybble-{index}", daemon=True
            )
            for index in range(1, threads)
        ]
        for worker in workers:
            worker.start()
        # The finalizer holds the code and the memory that the workers use until they are gone.
        held = (library, control)
        stop = partial(launch_at, self._address, None, runner.QUIT, 0, 0, 0, None)
        self.close = finalize(self, _stop, stop, self._lock, workers, self._owner, held)

    def run(self, sequence: StepList, n: int, pos: int, ticks: Ticks | None = None) -> None:
        """Runs the steps on all threads and returns when they are done.

        ticks: filled with the cycle counter before the first step and after each.
        """
        if not self.close.alive or os.getpid() != self._owner:
            raise PoolError("the thread pool is closed, or belongs to the process before a fork")
        if ticks is not None and len(ticks.cells) != sequence.count + 1:
            raise PoolError(f"room for {len(ticks.cells)} ticks", accepted=f"{sequence.count + 1}")
        if not sequence.count:
            return
        times = ticks.address if ticks else None
        with self._lock:
            self._launch(
                self._address, sequence.address, sequence.count, n, pos, self.threads, times
            )


def _stop(
    stop: Callable[[], None],
    lock: threading.Lock,
    workers: list[threading.Thread],
    owner: int,
    held: tuple[object, ...],
) -> None:
    if os.getpid() != owner:
        return
    with lock:
        stop()
    for worker in workers:
        worker.join()
    del held
