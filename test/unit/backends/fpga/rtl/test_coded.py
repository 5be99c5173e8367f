"""Elements of coded, bipolar and dense weights: how they take a product, and what they refuse."""

import numpy as np
import pytest

from nybble.backends.fpga.elements import ElementError
from nybble.backends.fpga.rtl.coded import CodedSpec, TermBits
from nybble.backends.fpga.rtl.designs import Design, beats_of, random_product, random_sparse
from nybble.backends.fpga.rtl.encoding import Product
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.simulate import program, run
from nybble.backends.fpga.rtl.sparse_encoding import sparse_beats
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.element import Bipolar

BITMOD = {bits: formats.get(f"bitmod{bits}g128").element for bits in (3, 4)}
SERIAL = Design("serial", CodedSpec(BITMOD[4], lanes=2, rows=2, depth=16))
COUNTING = Design(
    "xnor", PeSpec(Bipolar(2), lanes=3, rows=1, depth=16, activation_bits=3, odd=True)
)
DENSE = Design("sparse", SparseSpec(block=8, rows=1, dense=True))


@pytest.mark.parametrize("bits", BITMOD)
def test_terms_of_a_code_are_its_value_whatever_the_table(bits):
    spec = CodedSpec(BITMOD[bits])
    terms = TermBits(spec)
    places = terms.exponent_bits
    for table, values in enumerate(spec.tables):
        for code, value in enumerate(values):
            total = 0
            for number in range(spec.terms):
                term = terms.decoder(table, number * len(values) + code)
                used, negative = term >> places & 1, term >> (places + 1)
                total += used * (1 - 2 * negative) << (term & ((1 << places) - 1))
            assert total == value
    assert terms.decoder(0, spec.terms * len(spec.tables[0])) == 0


def test_rows_say_once_which_table_they_take():
    spec, random = CodedSpec(BITMOD[4], lanes=2), np.random.default_rng(0)
    weights = spec.draw((5, 2 * spec.k), random).reshape(5, 2, spec.k)
    fields = spec.row_fields(weights)
    assert fields.shape == (5, 2, spec.row_bits) == (5, 2, 4 * spec.k + 2)
    codes = (fields[..., :-2].reshape(5, 2, spec.k, 4) << np.arange(4)).sum(-1)
    tables = (fields[..., -2:] << np.arange(2)).sum(-1)
    assert np.array_equal(spec.tables[tables[..., None], codes], weights)


@pytest.mark.parametrize("design", [SERIAL, COUNTING], ids=lambda one: one.kind)
def test_sums_are_exact_whatever_the_shape_and_the_pauses(design, simulators):
    random, spec = np.random.default_rng(3), design.spec
    products = [
        random_product(spec, shape, random) for shape in ((1, 1), (9, 3 * spec.k), (8, spec.k + 1))
    ]
    ends = np.array([spec.activation_range[0] + spec.odd, spec.activation_range[1]])
    products.append(Product(products[1].weights, random.choice(ends, 3 * spec.k)))
    beats = [beats_of(design.kind, spec, one) for one in products]
    executable = program(design.verilog, design.top, simulators)
    for pauses in ([0] * 4, [128, 20, 90, 200]):
        found = run(executable, beats, design.y_words, pauses)
        for ran, beat, one in zip(found, beats, products, strict=True):
            assert np.array_equal(design.sums(ran.y, len(one.weights), beat)[:, 0], one.reference())


def test_a_chain_of_a_dense_matrix_takes_what_a_sparse_one_leaves_out():
    random = np.random.default_rng(4)
    weights = random_sparse((3, 61), 8, 4, random)
    beats = sparse_beats(DENSE.spec, weights, np.zeros((61, 2), int))
    assert len(beats.w) == 3 * 8
    assert beats.ideal == 3 * 61 / 8
    sparse = sparse_beats(SparseSpec(block=8, rows=1), weights, np.zeros((61, 2), int))
    assert len(sparse.w) == 2 * len(beats.w)  # four of eight, two in a cycle


@pytest.mark.parametrize(("kind", "spec", "message"), [
    ("serial", PeSpec(Bipolar(2)), "terms of 'bip2'"),
    ("xnor", PeSpec(Bipolar(2)), "bits of 'bip2' and activations that are compared"),
    ("nosuch", PeSpec(Bipolar(2)), "a nosuch element"),
])  # fmt: skip
def test_ways_that_weights_do_not_have_are_refused(kind, spec, message):
    with pytest.raises(RtlError, match=message):
        _ = Design(kind, spec).modules


def test_products_that_an_element_cannot_take_are_refused():
    odd, spec = COUNTING.spec, SERIAL.spec
    with pytest.raises(RtlError, match="activation 2") as caught:
        beats_of("xnor", odd, Product(np.ones((1, 2), int), np.array([1, 2])))
    assert caught.value.accepted == "-4 to 3, odd"
    with pytest.raises(RtlError, match="weights of a row that no table of 'bitmod4"):
        beats_of("serial", spec, Product(np.array([[10, -10]]), np.zeros(2, int)))
    with pytest.raises(ElementError, match=r"the values of 'nf4.*' are no small integers"):
        CodedSpec(formats.get("nf4").element)
