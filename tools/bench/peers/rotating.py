"""A peer's product as callables, one for each copy of the weights, run in rotation."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.tools.bench.own_thread import OwnThread
from nybble.tools.bench.rounds import Rotation, timed


class RotatingKernel:
    """Runs every copy's product in turn; see `peers.api.KernelRunner`.

    products: one for each copy; each returns its result, f32 [n, rows], or what numpy makes one of.
    """

    def __init__(
        self,
        thread: OwnThread,
        products: Sequence[Callable[[], Any]],
        rotation: Rotation,
    ) -> None:
        self._thread = thread
        self._products = list(products)
        self._rotation = rotation

    def seconds(self) -> float:
        """Runs all products; seconds for one of them."""
        return self._thread.run(timed, self._run) / self._rotation.products

    def result(self) -> NDArray[np.float32]:
        """What a product gives."""
        return np.asarray(self._thread.run(self._products[-1]), np.float32)

    def close(self) -> None:
        """Gives the weights back."""
        self._products.clear()

    def _run(self) -> None:
        for _ in range(self._rotation.repeats):
            for product in self._products:
                product()
