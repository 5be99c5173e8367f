"""Elements as digits: every integer comes back, what is no sum of digits is refused."""

import numpy as np
import pytest

from nybble.backends.fpga.rtl.digits import digits_of
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.element import Bipolar, Ternary, Uniform

ELEMENTS = {
    "bipolar": (Bipolar(3), range(-7, 8, 2)),
    "one bit": (Bipolar(1), (-1, 1)),
    "ternary": (Ternary(), (-1, 0, 1)),
    "signed": (Uniform(4, 8), range(-8, 8)),
    "unsigned": (Uniform(3), range(8)),
    "signed bit": (Uniform(1, 1), (-1, 0)),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_digits_stand_for_every_integer_once(name):
    element, integers = ELEMENTS[name]
    digits = digits_of(element)
    split = digits.split(np.array(integers))
    assert digits.join(split).tolist() == list(integers)
    assert len({tuple(row) for row in split}) == digits.radix**digits.planes
    assert (digits.low, digits.high) == (min(integers), max(integers))


@pytest.mark.parametrize(
    ("element", "integer", "accepted"),
    [
        (Bipolar(2), 0, "-3 to 3 in steps of 2"),
        (Bipolar(2), 5, "-3 to 3"),
        (Uniform(2, 2), 2, "-2 to 1"),
        (Ternary(), 2, "-1 to 1"),
    ],
)
def test_other_integers_are_refused(element, integer, accepted):
    with pytest.raises(RtlError, match=f"^{integer} is no weight") as caught:
        digits_of(element).split(np.array([element.bits and integer]))
    assert accepted in caught.value.accepted


@pytest.mark.parametrize("spec", ["nf4", "mxfp4", "u4-3:g=32:s=f16"])
def test_elements_that_are_no_digits_are_refused(spec):
    with pytest.raises(RtlError, match="no sum of digits"):
        digits_of(formats.get(spec).element)
