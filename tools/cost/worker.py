"""The process that runs kernels, which may crash or never end: whoever started it can kill it.

Kernels of a batch take turns, in a new random order each round, so that all see the same drift of
the machine. Time is that of the thread, which on a shared machine varies ten times less than the
clock on the wall; the least of a round counts. Between blocks of turns a sentinel runs, a fixed
piece of work: where its time has drifted, what was measured beside it is thrown away and repeated.
"""

import ctypes
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.loader import Library, load

Array = npt.NDArray[np.generic]
SAMPLE_SECONDS = 4e-4
"""What a sample takes at least: that many calls in a row."""
SAMPLES = 3
"""Samples of a turn, of which the least counts."""
BLOCK = 12
"""Turns between two looks at the sentinel."""
DRIFT = 1.12
"""Times its best that a sentinel may take in a block that counts."""
PATIENCE = 5
"""How often a block is repeated before the least of its times count all the same."""
WAIT_SECONDS = 0.02
"""Rest after the second disturbed attempt; a multiple of it after each further one."""
MOST_REPEATS = 4096
NMSE = {"f": 1e-5, "i": 1e-2}
"""Kind of numbers -> the greatest error against the first candidate. Sums in another order differ
a little; a code that is rounded the other way may wrap its low digit around."""


@dataclass(frozen=True)
class Turn:
    """A call that is measured. symbol: the function; kernel: whose buffers; see Workload."""

    symbol: str
    sizes: tuple[int, ...]
    tokens: int
    shares: int
    position: int = 0


@dataclass(frozen=True)
class Batch:
    """Candidates of one subject. inputs: place of a buffer -> its content. outputs: places.

    types: numpy's names of the buffers' types. turns: the first of each size of call is
    the one that the others must agree with.
    """

    objects: tuple[bytes, ...]
    types: tuple[str, ...]
    inputs: dict[int, Array]
    outputs: tuple[int, ...]
    turns: tuple[Turn, ...]
    rounds: int
    seed: int


@dataclass(frozen=True)
class Found:
    """What came of a batch: turn -> the least seconds of each round, turn -> what is wrong."""

    seconds: dict[int, list[float]]
    failures: dict[int, str]
    discarded: int


class Runner:
    """Kernels in memory. current: where a turn's number is written before it runs."""

    def __init__(self, batch: Batch, current: "Synchronized[int]") -> None:
        self.batch = batch
        self.library: Library = load(batch.objects)
        self.current = current
        self.calls: list[Callable[[], None]] = []
        self.keep: list[list[Array]] = []
        self.repeats = [1] * len(batch.turns)
        self._memory: dict[tuple[int, int], Array] = {}
        for turn in batch.turns:
            self.calls.append(self._call(turn))

    def _call(self, turn: Turn) -> Callable[[], None]:
        """The function with its arguments, ready to be called."""
        buffers = [self._buffer(i, size) for i, size in enumerate(turn.sizes)]
        self.keep.append(buffers)
        pointers = [ctypes.c_void_p(one.ctypes.data) for one in buffers]
        numbers = [turn.tokens, turn.position, 0, turn.shares]
        values = (*pointers, *map(ctypes.c_int64, numbers))
        types = [ctypes.c_void_p] * len(pointers) + [ctypes.c_int64] * len(numbers)
        function = ctypes.CFUNCTYPE(None, *types)(self.library.symbol(turn.symbol))
        return lambda: function(*values)

    def _buffer(self, place: int, size: int) -> Array:
        """Inputs are shared by all; so is the rest by those that need as much of it."""
        if place in self.batch.inputs:
            return self.batch.inputs[place]
        if (place, size) not in self._memory:
            self._memory[place, size] = aligned(size, self.batch.types[place])
        return self._memory[place, size]

    def check(self, number: int, wanted: dict[tuple[int, int, int], list[Array]]) -> str | None:
        """Run a turn once; what is wrong with what it gives, None if nothing."""
        turn = self.batch.turns[number]
        for place in self.batch.outputs:
            if place not in self.batch.inputs:
                self.keep[number][place].fill(0)
        self.calls[number]()
        found = [np.array(self.keep[number][place], np.float64) for place in self.batch.outputs]
        reference = wanted.setdefault((turn.tokens, turn.shares, turn.position), list(found))
        kinds = [np.dtype(self.batch.types[place]).kind for place in self.batch.outputs]
        for kind, one, other in zip(kinds, found, reference, strict=True):
            power = float((other.astype(np.float64) ** 2).sum()) or 1.0
            error = float(((one - other) ** 2).sum()) / power
            if not error <= NMSE[kind]:
                return f"wrong result: normalised mean square error {error:.3g}"
        return None

    def calibrate(self, number: int) -> None:
        """How many calls make a sample long enough."""
        self.calls[number]()
        taken = max(self.sample(number, 1), 1e-7)
        self.repeats[number] = max(1, min(MOST_REPEATS, round(SAMPLE_SECONDS / taken)))

    def sample(self, number: int, repeats: int) -> float:
        """Seconds of one call, the mean of so many in a row."""
        call = self.calls[number]
        start = time.thread_time()
        for _ in range(repeats):
            call()
        return (time.thread_time() - start) / repeats

    def turn(self, number: int) -> float:
        """The least of some samples, after a call that fills the caches."""
        self.current.value = number
        self.calls[number]()
        return min(self.sample(number, self.repeats[number]) for _ in range(SAMPLES))

    def turns(self, numbers: Sequence[int]) -> list[float]:
        """A turn of each."""
        return [self.turn(number) for number in numbers]


def measure(
    batch: Batch,
    current: "Synchronized[int]",
    alive: Callable[[], object],
    sentinel: "Sentinel",
) -> Found:
    """All turns, `batch.rounds` times."""
    runner = Runner(batch, current)
    failures: dict[int, str] = {}
    wanted: dict[tuple[int, int, int], list[Array]] = {}
    for number in range(len(batch.turns)):
        current.value = number
        fault = runner.check(number, wanted)
        if fault is not None:
            failures[number] = fault
        else:
            runner.calibrate(number)
        alive()
    good = [number for number in range(len(batch.turns)) if number not in failures]
    seconds: dict[int, list[float]] = {number: [] for number in good}
    shuffle, discarded = random.Random(batch.seed).shuffle, 0
    for _ in range(batch.rounds):
        shuffle(good)
        for start in range(0, len(good), BLOCK):
            block = good[start : start + BLOCK]
            found, repeated = sentinel.watch(
                lambda turns=block: [runner.turn(one) for one in turns]
            )
            discarded += repeated
            for number, taken in zip(block, found, strict=True):
                seconds[number].append(taken)
            alive()
    return Found(seconds, failures, discarded)


class Sentinel:
    """A fixed piece of work that takes as long as ever, unless the machine is disturbed.

    What competes for a core's units (its other hardware thread) shows in it, as does a lower clock.
    """

    SIZE, TIMES = 64, 12

    def __init__(self) -> None:
        self.matrix = np.full((self.SIZE, self.SIZE), 0.5, np.float32)
        self.best = min(self.look() for _ in range(20))

    def look(self) -> float:
        """Seconds of the work now."""
        start = time.thread_time()
        for _ in range(self.TIMES):
            self.matrix @ self.matrix
        return time.thread_time() - start

    def calm(self) -> bool:
        """Whether the machine is as fast as it ever was."""
        now = min(self.look() for _ in range(2))
        self.best = min(self.best, now)
        return now <= DRIFT * self.best

    def watch(self, work: Callable[[], list[float]]) -> tuple[list[float], int]:
        """What work gives between two calm looks, and how often it was done in vain."""
        found: list[float] = []
        for attempt in range(PATIENCE):
            before = self.calm()
            taken = work()
            found = [min(pair) for pair in zip(found, taken, strict=True)] if found else taken
            if before and self.calm():
                return taken, attempt
            time.sleep(WAIT_SECONDS * attempt)
        return found, PATIENCE


def aligned(size: int, dtype: str) -> Array:
    """Zeros that start at a cache line."""
    item = np.dtype(dtype).itemsize
    raw = np.zeros(size * item + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * item].view(dtype)


def serve(pipe: "Connection[Any, Any]", current: "Synchronized[int]") -> None:
    """The loop of the process: a Batch comes in, `None` for every sign of life, then a Found."""
    sentinel = Sentinel()
    while True:
        try:
            batch = pipe.recv()
        except EOFError:
            return
        pipe.send(measure(batch, current, lambda: pipe.send(None), sentinel))
