"""Circuits as text: widths follow ranges, mistakes of a generator are caught at once."""

import pytest

from nybble.backends.fpga.rtl.emit import Module, Wire, bits, width_of
from nybble.backends.fpga.rtl.errors import RtlError


@pytest.mark.parametrize(
    ("low", "high", "width"),
    [(0, 0, 1), (0, 1, 1), (0, 8, 4), (-1, 0, 1), (-1, 1, 2), (-8, 7, 4), (-8, 8, 5), (-9, -2, 5)],
)
def test_a_width_holds_a_range_and_no_more(low, high, width):
    assert width_of(low, high) == width


def test_sums_and_products_are_as_wide_as_they_must_be():
    module = Module("m")
    a = module.input_range(Wire("%a", -128, 127))
    total = module.add(a, a)
    assert (total.low, total.high, total.width) == (-256, 254, 9)
    assert module.mul(a, Wire("%a", -128, 127)).width == 16
    assert module.sub(a, a).width == 9
    shifted = module.shifted_sum(a, a, 2, minus=True)
    assert (shifted.low, shifted.high) == (-128 - 4 * 127, 127 + 4 * 128)


def test_the_text_of_a_module():
    module = Module("m")
    module.output("y", module.register(module.input("x", 4)))
    assert module.text() == (
        "hw.module @m(in %clk : !seq.clock, in %x : i4, out y : i4) {\n"
        "  %v1 = seq.compreg %x, %clk : i4\n"
        "  hw.output %v1 : i4\n}\n"
    )


def test_slips_of_a_generator_are_told():
    module = Module("m")
    wire = module.input("x", 4)
    with pytest.raises(ValueError, match="is defined by"):
        module.define(module.flag(), wire)
    with pytest.raises(ValueError, match="does not fit"):
        module.extend(wire, 3)
    with pytest.raises(ValueError, match="is no"):
        module.cast(wire, 0, 99)
    with pytest.raises(ValueError, match="0 inputs and 0 outputs"):
        module.instance("part", Module("n"), [wire], [])
    with pytest.raises(RtlError, match="a wire of 70000 bits"):
        module.repeat(bits("%b", 1), 70000)
