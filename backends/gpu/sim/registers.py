"""The registers of a batch of threads: one array for each name."""

from typing import Any

import numpy as np

from nybble.backends.gpu.sim.types import Array, Scalar, scalar

UNDEFINED = 1
IN_FLIGHT = 2


class Register:
    """One register of every thread.

    data: its bits. hazard: uint8 a thread, UNDEFINED or IN_FLIGHT where it may not be read; None
    when all of it may be. watched: of a register of a wgmma, where to note who wrote it. held: of
    such a register, the threads for which an operation in flight uses it; None if there are none.
    """

    def __init__(self, name: str, type_: Scalar, threads: int) -> None:
        self.name = name
        self.type = type_
        self.data = np.zeros(threads, type_.storage)
        self.hazard: Array | None = np.full(threads, UNDEFINED, np.uint8)
        self.watched: Array | None = None
        self.held: Array | None = None

    def define(self, index: Any, size: int) -> None:
        """Note that the threads of an index were given a value."""
        if self.watched is not None:
            self.watched[index] = True
        if self.hazard is None:
            return
        if size == len(self.data):
            self.hazard = None
        else:
            self.hazard[index] = 0

    def hold(self, index: Any, *, held: bool = True) -> None:
        """Note for which threads an operation in flight uses it, or does no longer."""
        if self.held is None:
            self.held = np.zeros(len(self.data), np.bool_)
        self.held[index] = held
        if not held and not self.held.any():
            self.held = None

    def hazard_of(self, index: Any) -> Array | None:
        """The hazards of the threads of an index; None if there are none."""
        if self.hazard is None:
            return None
        found = self.hazard[index]
        return found.copy() if found.any() else None

    def mark(self, index: Any, hazard: Array | int) -> None:
        """Note which threads of an index may not read it."""
        if self.hazard is None:
            self.hazard = np.zeros(len(self.data), np.uint8)
        self.hazard[index] = hazard


class RegisterFile:
    """All registers of a kernel, made when they are first named."""

    def __init__(self, types: dict[str, str], threads: int) -> None:
        self.types = types
        self.threads = threads
        self.made: dict[str, Register] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.types

    def __getitem__(self, name: str) -> Register:
        if name not in self.made:
            self.made[name] = Register(name, scalar(self.types[name]), self.threads)
        return self.made[name]
