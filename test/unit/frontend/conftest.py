"""Hostile input: what every reader must refuse, and soon."""

import signal
from collections.abc import Callable, Iterator

import pytest

_CPU_SECONDS = 60.0  # what is refused takes a second at most; what hangs takes hours


@pytest.fixture
def bounded() -> Iterator[Callable[[], None]]:
    """Call it before each hostile input: one that is never refused fails the test, not hangs it."""

    def stop(*_: object) -> None:
        pytest.fail(f"took more than {_CPU_SECONDS} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_SECONDS) and None
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)
