"""The circuit of a loop: a second opinion of rows, and what it refuses."""

import numpy as np
import pytest

from nybble.backends.fpga.rtl import loops
from nybble.backends.fpga.rtl.circt import LOOP, exported
from nybble.backends.fpga.rtl.digits import digits_of
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.loops import LOOP_TEXT, MOST, LoopRow, loop_sums
from nybble.dialects.lowbit.formats.element import Bipolar, Ternary, Uniform

ELEMENTS = (Bipolar(1), Ternary(), Uniform(2, 2), Uniform(8, 128), Uniform(3))


def rows_of(elements, counts, random):
    """Random rows, and what numpy makes of their digits."""
    rows, expected = [], []
    for element, count in zip(elements, counts, strict=True):
        digits = digits_of(element)
        weights = digits.join(random.integers(0, digits.radix, (count, digits.planes)))
        activations = random.choice([-128, 127, *range(-20, 20)], count)
        codes = (weights - digits.low) // digits.step
        rows.append(LoopRow(codes, activations, digits.step, digits.low))
        expected.append(int(weights @ activations))
    return rows, expected


def test_a_loop_gives_the_sums_of_every_element(simulators, monkeypatch):
    rows, expected = rows_of(ELEMENTS, (1, 7, 100, MOST, 33), np.random.default_rng(0))
    assert loop_sums(rows, simulators) == expected
    without_sign = [LoopRow(one.codes, one.activations & 255, one.step, one.low) for one in rows]
    assert loop_sums(without_sign, simulators) == expected  # memories hold eight bits
    shifted = [LoopRow(one.codes, one.activations, one.step, one.low + 1) for one in rows]
    found = loop_sums(shifted, simulators)
    more = [int(one.activations.sum()) for one in rows]
    assert found == [sum(pair) for pair in zip(expected, more, strict=True)]
    late = np.array([0, 9, 5, 1, 1064, 0], "<u4").tobytes()
    monkeypatch.setattr(loops, "output_of", lambda *_: late)
    with pytest.raises(RtlError, match="row 1 does not end within 1064 cycles"):
        loop_sums(rows, simulators)


def test_a_loop_that_is_wrong_is_rejected(circuits):
    with pytest.raises(RtlError, match=r"CIRCT rejects the circuit: .*undeclared SSA value"):
        exported(LOOP_TEXT.replace("%so_far : index", "%nothing : index"), LOOP)


@pytest.mark.parametrize(("codes", "activations"), [(0, 0), (MOST + 1, MOST + 1), (3, 2)])
def test_rows_that_do_not_fit(codes, activations):
    with pytest.raises(
        RtlError, match=f"a loop over {codes} codes and {activations} activ"
    ) as told:
        LoopRow(np.zeros(codes, int), np.zeros(activations, int), 1, 0)
    assert told.value.accepted == f"1 to {MOST} of each"
