"""Needles: where they stand, what must follow, and texts that are too short."""

import pytest

from nybble.dialects.errors import NybbleError
from nybble.tools.needle import SENTENCE, found, haystack


def encode(text):
    return [*text.encode()]


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_a_haystack(depth):
    stack = haystack(encode, "straw and ", 300, depth, 7)
    text, answer = bytes(stack.ids).decode(), bytes(stack.answer).decode()
    assert len(stack.ids) + len(stack.answer) == 300
    assert text.endswith(SENTENCE)
    assert text.count(f"{SENTENCE}{answer}.\n") == 1
    place = text.index(SENTENCE) / (300 - 2 * len(SENTENCE))
    assert abs(place - depth) < 0.15
    assert found(stack, lambda ids, count: list(stack.answer)[:count])
    assert not found(stack, lambda ids, count: [0] * count)


def test_a_haystack_without_room():
    with pytest.raises(NybbleError, match=r"a haystack of 60 tokens \(accepted: \d+ or more\)"):
        haystack(encode, "straw", 60, 0.5, 0)
