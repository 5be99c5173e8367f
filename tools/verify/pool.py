"""Runs pieces of work in this process or in others, for every kind of verification."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from nybble.backends.llvm.workers import close_idle

Work = TypeVar("Work")
Found = TypeVar("Found")


@contextmanager
def runner(
    jobs: int, function: Callable[[Work], Found]
) -> Generator[Callable[[Sequence[Work]], Iterable[Found]]]:
    """What does work, in any order: this process, or so many others."""
    if jobs <= 1:
        try:
            yield lambda given: map(function, given)
        finally:
            close_idle()
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield lambda given: pool.imap_unordered(function, given)
