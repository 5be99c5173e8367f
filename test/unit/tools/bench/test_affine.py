"""Weights as other systems take them hold the same numbers."""

import numpy as np
import pytest

from nybble.tools.bench.data import make_sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.options import Shape
from nybble.tools.bench.peers.affine import affine

SHAPE = Shape(24, 256)


@pytest.mark.parametrize(
    ("spec", "bits", "whole"),
    [
        ("q4_0", 4, True),
        ("q4_1", 4, False),
        ("q8_0", 8, True),
        ("w3g64", 4, True),
        ("w2g128", 2, True),
        ("w4g128z", 4, True),
        ("bip2:g=64:s=f16", 2, False),
    ],
)
def test_codes_scales_and_zero_points_give_the_weight(spec, bits, whole):
    sample = make_sample(spec, SHAPE, 1)
    weight = affine(sample, (2, 4, 8))
    assert weight.bits == bits
    assert (weight.whole_zero_points is not None) == whole
    groups = weight.codes.reshape(SHAPE.rows, -1, weight.group).astype(np.float64)
    values = (groups - weight.zero_point[:, :, None]) * weight.scale[:, :, None]
    exact = sample.format.unpack(sample.raw, SHAPE.cols).dequantize()
    np.testing.assert_allclose(values.reshape(exact.shape), exact, rtol=1e-5, atol=1e-6)


def test_bits_lie_side_by_side():
    weight = affine(make_sample("q4_0", SHAPE, 1), (4,))
    packed = weight.packed(np.array([[1, 2, 3], [15, 0, 7]], np.uint8))
    assert packed.tolist() == [[0x21, 0x03], [0x0F, 0x07]]


@pytest.mark.parametrize(
    ("spec", "widths", "message"),
    [
        ("q8_0", (2, 4), "has codes of 8 bits"),
        ("nf4", (4,), "are not on a line"),
        ("f16", (4, 8), "is not codes"),
        ("bitmod4g64", (4, 8), "is not codes"),
    ],
)
def test_what_others_have_no_words_for(spec, widths, message):
    with pytest.raises(UnavailableError, match=message):
        affine(make_sample(spec, SHAPE, 1), widths)
