"""Batches of kernels measured in a process of their own: what crashes or hangs there is a failure.

The process is kept between batches. When it dies, or says nothing for a while, the turn that was
running is to blame: it is recorded as a failure and the batch starts again without it.
"""

import multiprocessing
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Self

from nybble.tools.cost.worker import Batch, Found, serve

HANG_SECONDS = 20.0


class Measurer:
    """Owns the process. hang: seconds without a sign of life after which it is killed."""

    def __init__(self, hang: float = HANG_SECONDS) -> None:
        self.hang = hang
        self._context = multiprocessing.get_context("spawn")
        self._current: Synchronized[int] = self._context.Value("i", -1)
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def measure(self, batch: Batch) -> Found:
        """What came of each turn, by its number in the batch."""
        numbers = [*range(len(batch.turns))]
        failures: dict[int, str] = {}
        while numbers:
            rest = replace(batch, turns=tuple(batch.turns[number] for number in numbers))
            found = self._attempt(rest)
            if isinstance(found, Found):
                seconds = {numbers[i]: taken for i, taken in found.seconds.items()}
                wrong = {numbers[i]: said for i, said in found.failures.items()}
                return Found(seconds, failures | wrong, found.discarded)
            at = self._current.value
            blamed = numbers.pop(at if 0 <= at < len(numbers) else 0)
            failures[blamed] = found
        return Found({}, failures, 0)

    def _attempt(self, batch: Batch) -> Found | str:
        """What came of a batch, or what became of the process."""
        pipe = self._started()
        self._current.value = -1
        try:
            pipe.send(batch)
            while pipe.poll(self.hang):
                said = pipe.recv()
                if said is not None:
                    return said
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return self._death()
        self.close()
        return f"hangs: no sign of life for {self.hang:g} s"

    def _death(self) -> str:
        process = self._process
        assert process is not None
        process.join()
        code = process.exitcode or 0
        self.close()
        if code < 0:
            return f"crashes: {signal.Signals(-code).name}"
        return f"ends the process with status {code}"

    def _started(self) -> "Connection[Any, Any]":
        if self._pipe is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(
                target=serve, args=(theirs, self._current), daemon=True
            )
            self._process.start()
            theirs.close()
        return self._pipe
