"""The limit on processor time fires, is lifted afterwards, and can be left out."""

import itertools
import signal
from contextlib import suppress

import pytest

from nybble.dialects.errors import LimitError
from nybble.tools.time_limit import time_limit


def test_limit_fires():
    with (
        pytest.raises(LimitError, match=r"counting took more than 0\.01 s") as fault,
        time_limit(0.01, "counting", "less"),
    ):
        for _ in itertools.count():
            pass
    assert fault.value.accepted == "less"
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_an_error_that_is_dropped_comes_again():
    def spin():
        for _ in range(10**8):
            pass

    def spin_twice():
        with suppress(LimitError):
            spin()
        spin()

    with time_limit(0.01, "counting", "less"), pytest.raises(LimitError):
        spin_twice()


def test_no_limit():
    with time_limit(0, "counting", "less"):
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_limit_is_lifted():
    before = signal.getsignal(signal.SIGPROF)
    with time_limit(100, "counting", "less"):
        assert signal.getitimer(signal.ITIMER_PROF)[0] > 0
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGPROF) == before
