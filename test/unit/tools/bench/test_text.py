"""The text of perplexities, its windows, and the arithmetic."""

import math
import sysconfig

import numpy as np
import pytest

from nybble.tools.bench import text
from nybble.tools.bench.errors import UnavailableError


def test_text_is_the_same_each_time_and_of_the_right_size():
    first = text.sample_text()
    assert first == text.sample_text()
    assert len(first) == text.TEXT_BYTES
    assert len(text.digest(first)) == 16


def test_text_without_a_licence_is_docstrings(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    assert text.sample_text(1000).startswith(text._docstring(text.MODULES[0]).strip()[:40])


def test_python_without_docstrings_is_told(monkeypatch):
    monkeypatch.setattr(text, "MODULES", ())
    with pytest.raises(UnavailableError, match="characters of text"):
        text.sample_text(10**6)


def test_windows_are_whole():
    assert list(text.windows(list(range(10)), 4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_surprise_is_the_negative_log_likelihood():
    random = np.random.default_rng(0)
    logits = random.standard_normal((5, 7)).astype(np.float32) * 30
    targets = [0, 6, 3, 3, 1]
    wide = logits.astype(np.float64)
    expected = -sum(wide[i, t] - math.log(np.exp(wide[i]).sum()) for i, t in enumerate(targets))
    assert text.surprise(logits, targets) == pytest.approx(expected, rel=1e-12)


def test_perplexity_of_no_knowledge_is_the_vocabulary():
    def uniform(window):
        return np.zeros((len(window) // 2 - 1, 50), np.float32)

    assert text.perplexity(uniform, list(range(40)) * 30) == pytest.approx(50)


def test_perplexity_scores_the_token_after_each_position():
    def knowing(window):
        logits = np.zeros((text.WINDOW // 2 - 1, 64), np.float32)
        for row, position in enumerate(range(text.WINDOW // 2, text.WINDOW - 1)):
            logits[row, window[position + 1]] = 100
        return logits

    ids = [(7 * i) % 64 for i in range(2 * text.WINDOW + 5)]
    assert text.perplexity(knowing, ids) == pytest.approx(1)


def test_too_few_tokens():
    with pytest.raises(UnavailableError, match="511 tokens are too few"):
        text.perplexity(lambda window: np.zeros((255, 4), np.float32), [0] * 511)
