"""A limit on the processor time of one step, for input that a parser cannot finish with."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from nybble.dialects.errors import LimitError


@contextmanager
def time_limit(seconds: float, what: str, accepted: str) -> Generator[None]:
    """Raise LimitError in the body once it has used `seconds` of processor time.

    seconds: 0 or less sets no limit. Signals reach the main thread alone, so there is none
    elsewhere either. `what` and `accepted` go into the message. Where Python drops the error, as
    in a callback of the garbage collector, it is raised again after as many seconds.
    """
    if seconds <= 0 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise LimitError(f"{what} took more than {seconds:g} s", accepted=accepted)

    previous = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
