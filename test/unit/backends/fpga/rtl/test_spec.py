"""What a processing element cannot be."""

import pytest

from nybble.backends.fpga.rtl.designs import Design
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.multiplier_pe import multiplier_pe
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.dialects.lowbit.formats.element import Bipolar, Ternary, Uniform


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"group": 6}, r"a table of 2\*\*6 entries"),
        ({"group": 0}, r"a table of 2\*\*0 entries"),
        ({"lanes": 1}, "lanes of 1"),
        ({"rows": 0}, "rows of 0"),
        ({"activation_bits": 17}, "activation_bits of 17"),
        ({"accumulator_bits": 49}, "accumulator_bits of 49"),
        ({"depth": 100}, "accumulators for 100 cycles"),
        ({"depth": 2}, "accumulators for 2 cycles"),
        ({"accumulator_bits": 12}, "accumulators of 12 bits for sums of 64 products"),
    ],
)
def test_dense_elements_that_cannot_be(given, message):
    with pytest.raises(RtlError, match=message):
        PeSpec(Uniform(2, 2), **given)


def test_a_ternary_table_holds_three_activations():
    assert PeSpec(Ternary(), group=3).entries == 27
    with pytest.raises(RtlError, match=r"3\*\*4 entries"):
        PeSpec(Ternary())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"block": 5}, "block of 5"),
        ({"tokens": 3}, "tokens of 3"),
        ({"rows": 65}, "65 rows"),
        ({"accumulator_bits": 40}, "40 bits"),
    ],
)
def test_sparse_elements_that_cannot_be(given, message):
    with pytest.raises(RtlError, match=message):
        SparseSpec(**given)


def test_kinds_and_specs_must_fit():
    with pytest.raises(RtlError, match="a sparse element of PeSpec"):
        Design("sparse", PeSpec(Bipolar(1)))
    with pytest.raises(RtlError, match="a magic element"):
        Design("magic", PeSpec(Bipolar(1)))
    with pytest.raises(RtlError, match="products 'magic'"):
        multiplier_pe(PeSpec(Bipolar(1)), "magic")


def test_sums_fit_into_accumulators():
    spec = PeSpec(Uniform(2, 2), accumulator_bits=16)
    assert spec.max_tiles * spec.sum_range[1] < 1 << 15
    assert (spec.max_tiles + 1) * spec.sum_range[1] >= 1 << 15
