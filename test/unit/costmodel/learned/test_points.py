"""Points as letters: what was written comes back, and what was not is refused."""

import numpy as np
import pytest

from nybble.costmodel.learned.points import LETTERS, from_letters, rounded, to_letters


def test_points_come_back():
    source = np.random.default_rng(0)
    points = np.round(source.normal(0, 3, (300, 6)), 2)
    points[:, 2] = 7.0
    points[:, 4] = source.integers(0, 3, 300)
    written = to_letters(points)
    assert np.array_equal(from_letters(written), points)
    letters = [0 if len(a) == 1 else 1 if len(a) <= len(LETTERS) else 2 for a in written["axes"]]
    assert letters.count(0) == 1
    assert letters.count(2) >= 1
    assert {len(text) for text in written["points"]} == {sum(letters)}


def test_letters_need_no_escapes():
    assert len(set(LETTERS)) == len(LETTERS)
    assert not set(LETTERS) & set("\"\\'")


def test_numbers_keep_five_digits():
    assert rounded([1 / 3, 2.0, 123456.0]) == [0.33333, 2, 123460]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"axes": [[1.0, 2.0]], "points": ["00"]}, "2 letters, not of 1"),
        ({"axes": [[1.0, 2.0]], "points": ["2"]}, "value 2 of an axis of 2"),
        ({"axes": [[1.0, 2.0]], "points": ['"']}, "substring not found"),
    ],
)
def test_what_is_no_point(written: dict[str, list[object]], said: str):
    with pytest.raises(ValueError, match=said):
        from_letters(written)
