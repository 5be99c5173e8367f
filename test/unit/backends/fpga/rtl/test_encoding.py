"""Products as words of ports, and products that an element has no room for."""

import numpy as np
import pytest

from nybble.backends.fpga.rtl.designs import random_sparse
from nybble.backends.fpga.rtl.encoding import Product, fields_of, table_beats, words_of
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.sparse_encoding import sparse_beats
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.dialects.lowbit.formats.element import Bipolar

SPEC = PeSpec(Bipolar(1), lanes=2, rows=2, depth=8, accumulator_bits=14)


@pytest.mark.parametrize("width", [3, 8, 24, 31])
def test_fields_come_back_from_words(width):
    edge = 1 << (width - 1)
    fields = np.random.default_rng(0).integers(-edge, edge, (5, 7))
    assert np.array_equal(fields_of(words_of(fields, width), width, 7), fields)


def test_beats_of_a_small_product():
    beats = table_beats(SPEC, Product(np.ones((5, 9), int), np.arange(9)))
    assert beats.a.shape == (4, 1)  # two tiles of two lanes, four activations in a word
    assert len(beats.w) == 8
    assert beats.results == 4
    assert beats.flags.tolist() == [1] * 4 + [2] * 4


@pytest.mark.parametrize(
    ("shape", "activations", "message"),
    [
        ((17, 8), np.zeros(8, int), "17 outputs need accumulators for 9 cycles, 1 too many"),
        ((2, 80), np.zeros(80, int), "a sum of 80 products may overflow 14 bits"),
        ((2, 8), np.full(8, 128), "activation 128"),
        ((2, 8), np.zeros(7, int), r"weights \(2, 8\) and activations \(7,\)"),
    ],
)
def test_products_without_room_are_refused(shape, activations, message):
    with pytest.raises(RtlError, match=message):
        table_beats(SPEC, Product(np.ones(shape, int), activations))


@pytest.mark.parametrize("kept", [2, 4, 8, 16])
def test_cycles_of_sparse_blocks_follow_what_is_kept(kept):
    weights = random_sparse((8, 64), 16, kept, np.random.default_rng(0))
    assert (np.count_nonzero(weights.reshape(8, 4, 16), axis=2) == kept).all()
    beats = sparse_beats(SparseSpec(16, rows=4), weights, np.zeros((64, 2), int))
    assert len(beats.w) == 2 * 4 * kept // 2 == beats.ideal


def test_sparse_products_without_room_are_refused():
    spec = SparseSpec(accumulator_bits=18)
    with pytest.raises(RtlError, match="a sum of 8 products may overflow"):
        sparse_beats(spec, np.zeros((1, 8), int), np.zeros((8, 2), int))
    with pytest.raises(RtlError, match=r"activations \(4, 1\) of weights"):
        sparse_beats(spec, np.zeros((1, 4), int), np.zeros((4, 1), int))
