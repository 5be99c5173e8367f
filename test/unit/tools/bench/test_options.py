"""Lists, shapes and numbers as they are spelled on a command line."""

from pathlib import Path

import pytest

from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.options import (
    ModelOptions,
    Shape,
    parse_choices,
    parse_counts,
    parse_names,
    parse_shapes,
)


def test_lists():
    assert parse_names(" a, b,a ,") == ("a", "b")
    assert parse_counts("1,128") == (1, 128)
    assert parse_counts("0,512", 0) == (0, 512)
    assert parse_shapes("576x1536,64x32") == (Shape(576, 1536), Shape(64, 32))
    assert str(Shape(576, 1536)) == "576x1536"
    assert parse_choices("cold", ("hot", "cold")) == ("cold",)


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (lambda: parse_names(" , "), "names nothing"),
        (lambda: parse_counts("1,x"), "'x'"),
        (lambda: parse_counts("0"), "whole number from 1"),
        (lambda: parse_counts("-3"), "'-3'"),
        (lambda: parse_counts("9" * 5000), "whole number"),
        (lambda: parse_counts("²"), "whole number"),
        (lambda: parse_shapes("4096"), "no shape"),
        (lambda: parse_shapes("4096x"), "''"),
        (lambda: parse_shapes("0x32"), "'0'"),
        (lambda: parse_choices("warm", ("hot", "cold")), "hot, cold"),
    ],
)
def test_slips_are_told(parse, message):
    with pytest.raises(BenchError, match=message):
        parse()


def test_context_has_room_for_everything():
    few = ModelOptions("m", Path(), prompt_tokens=8, decode_tokens=4, depths=(0,))
    many = ModelOptions("m", Path(), prompt_tokens=512, decode_tokens=64, depths=(0, 512))
    assert (few.tokens, few.context) == (8, 512)
    assert (many.tokens, many.context) == (576, 768)
