"""Streaming: the pieces add up to the whole text, and no piece ends inside a character."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nybble.frontend.text import Detokenizer

QUIET = [HealthCheck.function_scoped_fixture]


def stream(tokenizer, ids, **options):
    decoder = tokenizer.stream(**options)
    return [*(decoder.push(one) for one in ids), decoder.finish()]


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "\U0001f642\U0001f469\u200d\U0001f469",
        "\u65e5\u672c \u00e9\u00e8",
        "\ufffd\ufffd x",
    ],
)
def test_pieces(smollm2, text):
    found = stream(smollm2, smollm2.encode(text))
    assert "".join(found) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in found)
        assert found[-1] == ""


def test_special_tokens(smollm2):
    ids = smollm2.encode("hi<|im_end|>")
    assert "".join(stream(smollm2, ids)) == "hi"
    assert "".join(stream(smollm2, ids, skip_special_tokens=False)) == "hi<|im_end|>"


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(text=st.text(max_size=40))
def test_any_text(smollm2, text):
    ids = smollm2.encode(text)
    assert "".join(stream(smollm2, ids, skip_special_tokens=False)) == smollm2.decode(ids)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(ids=st.lists(st.one_of(st.integers(0, 400), st.integers(0, 49151)), max_size=40))
def test_any_ids(smollm2, ids):
    assert "".join(stream(smollm2, ids)) == smollm2.decode(ids, skip_special_tokens=True)


def test_endless_broken_bytes_cost_little(smollm2):
    """A model that writes only continuation bytes: nothing is held back for long."""
    (byte,) = [one for one in range(300) if smollm2.backend.id_to_token(one) == "\u0122"]
    decoder = smollm2.stream()
    found = [decoder.push(byte) for _ in range(1000)]
    assert len("".join(found)) >= 990
    decoder.finish()


def test_a_stream_can_be_used_again(smollm2):
    decoder = smollm2.stream()
    first = smollm2.encode("\U0001f642")
    assert "".join(decoder.push(one) for one in first[:-1]) == ""
    assert decoder.finish() == "\ufffd"
    assert "".join(decoder.push(one) for one in smollm2.encode("ok")) == "ok"


def test_leading_space_goes_only_at_the_start():
    """A decoder that strips the first space, as SentencePiece's does."""
    words = [" one", " two", "", " three"]
    decoder = Detokenizer(lambda ids: "".join(words[one] for one in ids).removeprefix(" "))
    assert [decoder.push(one) for one in (0, 1, 2, 3)] == ["one", " two", "", " three"]
