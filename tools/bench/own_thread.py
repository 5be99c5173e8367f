"""One thread for all that a peer does.

Some state of a processor belongs to a thread: ggml configures the AMX tiles of each of its threads
once and trusts them to stay, so code that configures or releases tiles on the same thread would
break its results. A thread of its own keeps the two apart.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class OwnThread:
    """Runs functions one after the other on one thread that nobody else uses."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    def run(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `action` on that thread, or what it raises."""
        return self._pool.submit(action, *args, **kwargs).result()
