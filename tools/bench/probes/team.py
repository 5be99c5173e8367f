"""A few threads that start the same work together, each on its part, and tell how long it took."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial


class Team:
    """`size` threads that stay between runs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._start = threading.Barrier(size)
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="nybble-probe")

    def seconds(self, work: Callable[[int], None]) -> float:
        """Calls `work(index)` on every thread at the same time; seconds of the slowest."""
        return max(self._pool.map(partial(self._timed, work), range(self.size)))

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def _timed(self, work: Callable[[int], None], index: int) -> float:
        self._start.wait()
        start = time.perf_counter()
        work(index)
        return time.perf_counter() - start
