"""Process networks against the product, on numpy alone: formats, tails, passes, refusals."""

import itertools

import numpy as np
import pytest
from test.unit.backends.fpga.conftest import BITMOD, make, product

from nybble.backends.fpga.analysis import FitError, analyse, check_fits
from nybble.backends.fpga.array_circuit import row_resources
from nybble.backends.fpga.dataflows import FPGA, MODE, devices, find_device
from nybble.backends.fpga.elements import ELEMENTS
from nybble.backends.fpga.packing import pack, pack_activation
from nybble.backends.fpga.rtl.resource_model import counted, lut_ram
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.table_pe import row_module
from nybble.costmodel.targets.reader import find_target
from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.dialects.fpga.arrays import ArrayOp
from nybble.dialects.fpga.attrs import SPACING
from nybble.dialects.fpga.serial import terms_of
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.element import Uniform
from nybble.passes.targets import Product

SHAPES = (
    ("lut_array", "w1", 1, 3, 1),
    ("lut_array", "w1g128", 130, 256, 1),
    ("lut_array", "w2", 33, 1, 2),
    ("lut_array", "w2g64", 9, 192, 7),
    ("lut_array", "w3g32", 5, 96, 4),
    ("lut_array", "w4g128", 17, 128, 2),
    ("lut_array", "q4_0", 3, 32, 1),
    ("lut_array", "tq2_0", 5, 512, 1),
    ("lut_array", "bip3:g=32:s=f32", 4, 64, 1),
    ("multiply_array", "b1_58", 4, 33, 3),
    ("multiply_array", "fp4", 6, 96, 1),
    ("multiply_array", "iq4_nl", 3, 64, 1),
    ("multiply_array", "mxfp4", 3, 64, 1),
    ("multiply_array", "i8:g=32:s=f32", 3, 64, 5),
    ("lut_array", "q4_1", 3, 64, 2),
    ("lut_array", "w2g32z", 7, 96, 5),
    ("lut_array", "w1g64m", 3, 64, 1),
    ("multiply_array", "q4_k", 4, 256, 2),
    ("multiply_array", "w5g32z", 9, 64, 1),
    ("sparse_chain", "w4g32z", 5, 64, 1),
    ("sparse_chain", "w8", 6, 35, 3),
    ("serial_array", "bitmod4", 5, 256, 2),
    ("serial_array", "bitmod3g32", 3, 96, 1),
    ("serial_array", BITMOD, 9, 128, 5),
    ("serial_array", "q6_k", 2, 256, 1),
    ("serial_array", "w4g32z", 3, 64, 1),
    ("serial_array", "b1_58", 4, 33, 3),
    ("serial_array", "i8:g=128x2:s=u6-32*f32", 2, 512, 1),
    *(("sparse_chain", f"i4:g=64:s=f32:sparse={n}of16.block16", 48, 128, 2) for n in (2, 4, 8)),
    ("sparse_chain", "i8:g=row:s=f32:sparse=2of4", 3, 20, 1),
    ("sparse_chain", "i2:g=32:s=f32:sparse=1of4", 7, 32, 4),
)


@pytest.mark.parametrize(("flow", "spec", "rows", "cols", "tokens"), SHAPES)
def test_network_computes_the_product(flow, spec, rows, cols, tokens):
    made, random = make(flow, spec, rows, cols, tokens), np.random.default_rng(rows)
    made.kernel.verify()
    x = random.standard_normal((tokens, cols)).astype(np.float32)
    weight = made.weight(random.standard_normal((rows, cols)))
    _, found = made.reference(made.case(x, weight))
    wanted, terms = product(x, weight)
    assert found.shape == (tokens, rows)
    assert (np.abs(found - wanted) <= 1e-6 * terms + 1e-30).all()


@pytest.mark.parametrize("taken", [1, 2, 3, 4])
@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_bits_are_compared_and_counted(planes, taken):
    spec = f"bip{planes}:g=24:s=f32"
    made = make("xnor_array", spec, 5, 72, 3, has_bias=True, mode=f"b{taken}-token")
    made.kernel.verify()
    random = np.random.default_rng(planes)
    x = random.standard_normal((3, 72)).astype(np.float32)
    x[1] = 0
    weight, bias = made.weight(random.standard_normal((5, 72))), np.ones(5, np.float32)
    _, found = made.reference(made.case(x, weight, bias))
    wanted, terms = product(x, weight, bias, taken)
    assert (np.abs(found - wanted) <= 1e-6 * terms).all()


@pytest.mark.parametrize("flow", ELEMENTS)
def test_every_dataflow_adds_a_bias(flow):
    spec = "i4:g=32:s=f32:sparse=2of4" if flow == "sparse_chain" else "w4g32"
    made, random = make(flow, spec, 7, 64, 3, has_bias=True), np.random.default_rng(7)
    made.kernel.verify()
    x = random.standard_normal((3, 64)).astype(np.float32)
    weight, bias = made.weight(random.standard_normal((7, 64))), np.arange(7, dtype=np.float32)
    _, found = made.reference(made.case(x, weight, bias))
    wanted, terms = product(x, weight, bias)
    assert (np.abs(found - wanted) <= 1e-6 * terms).all()


def test_a_bias_belongs_to_a_kernel_that_adds_one():
    plain, biased = (make("lut_array", "w2g32", 3, 32, 1, has_bias=one) for one in (False, True))
    weight = plain.weight(np.ones((3, 32)))
    with pytest.raises(NybbleError, match="a bias for a kernel of 'w2g32'"):
        pack(plain.design, weight, np.ones(3, np.float32))
    with pytest.raises(NybbleError, match="no bias for a kernel of 'w2g32'"):
        pack(biased.design, weight)


def test_groups_are_scaled_bit_by_bit_where_nothing_waits_for_it():
    hidden = make("serial_array", "bitmod4[5.0,8.0]:g=128x4:s=u8*f16", 64, 2048, 1).design
    assert (str(hidden.code), hidden.joined) == ("ui8", 4)
    for flow, spec in (("multiply_array", "q6_k"), ("serial_array", "q6_k")):
        assert make(flow, spec, 64, 2048, 1).design.code is None


@pytest.mark.parametrize("value", [*range(-128, 129), 85, -85, 1000])
def test_terms_of_a_weight_are_its_fewest_signed_powers_of_two(value):
    terms = terms_of(value)
    assert sum(sign << exponent for sign, exponent in terms) == value
    exponents = [exponent for _, exponent in terms]
    assert all(one - other > 1 for one, other in itertools.pairwise(exponents))


def test_a_term_a_cycle_takes_as_many_cycles_as_a_weight_has_terms():
    for spec, terms in (("bitmod3", 2), ("bitmod4", 2), ("fp4", 2), ("w6", 3), ("w8", 4)):
        made = make("serial_array", spec, 512, 512, 1)
        (array,) = (op for op in made.kernel.processes if isinstance(op, ArrayOp))
        assert array.element.terms == terms, spec
        assert array.steps >= terms * made.design.tiling.row_blocks


@pytest.mark.parametrize("pair", ["row", "token"])
def test_two_products_of_extremes_share_a_dsp_block(pair):
    """The lower sum's sign reaches the upper one's bits (AMD WP486); all signs of all extremes."""
    spec = "i8:g=row:s=f32" if pair == "row" else "i8:g=row:s=f32:sparse=2of4"
    made = make("sparse_chain", spec, 2, 32, 2)
    tiling, element = made.design.tiling, made.design.element
    assert element.pair(tiling) == pair
    assert element.chain() * 127 * 128 < 2 ** (SPACING - 1)
    assert element.chain() == element.keep.data or (element.chain() + 1) * 127 * 128 >= 1 << 17


def test_a_row_that_is_not_finite_spoils_no_other():
    made = make("lut_array", "w2g32", 7, 64, 3)
    x = np.ones((3, 64), np.float32)
    x[1, 5] = np.inf
    _, found = made.reference(made.case(x, made.weight(np.ones((7, 64)))))
    assert np.isfinite(found[[0, 2]]).all()
    assert not np.isfinite(found[1]).any()


def test_another_weight_is_refused():
    made = make("lut_array", "w2g32", 7, 64, 1)
    other = formats.get("w2g32").quantize(np.ones((7, 32), np.float32))
    with pytest.raises(NybbleError, match=r"a weight of 'w2g32' \(7, 32\) for a kernel of 'w2g32'"):
        pack(made.design, other)


@pytest.mark.parametrize(("flow", "spec", "why"), [
    ("lut_array", "f16", "'f16' has no codes"),
    ("lut_array", "spqr3", "is grouped across rows"),
    ("lut_array", "i4:g=32:s=f16:fix=hadamard.32", "is corrected after the product"),
    ("lut_array", "u4:g=32.rows:s=f16", "is grouped across rows"),
    ("lut_array", "w8", "codes of 'w8' are no bits of a few planes"),
    ("lut_array", "nf4", "codes of 'nf4' are no bits of a few planes"),
    ("lut_array", "i4:g=32:s=f32:sparse=2of4", "is sparse"),
    ("multiply_array", "nf4", "the values of 'nf4' are no small integers"),
    ("multiply_array", "bitmod4", "groups of 'bitmod4' choose from 4 tables"),
    ("sparse_chain", "bitmod4", "groups of 'bitmod4' choose from 4 tables"),
    ("serial_array", "nf4", "the values of 'nf4' are no small integers"),
    ("sparse_chain", "i4:g=32:s=f16:sparse=csr", "does not keep some of so many columns"),
    ("sparse_chain", "u4:g=32:s=f16:z=min.f16:sparse=2of4", "keeps zeros"),
    ("sparse_chain", "i4:g=2:s=f32:sparse=2of4", "groups of 2 columns"),
])  # fmt: skip
def test_a_format_without_an_element_is_refused(flow, spec, why):
    with pytest.raises(NybbleError, match=why):
        make(flow, spec, 64, 256, 1)


def test_rows_of_an_array_are_counted_as_rows_of_a_circuit():
    """The model that counts both is held against Yosys; see rtl/test_synthesis.py."""
    spec = PeSpec(Uniform(2, 2), 5, lanes=16, rows=1, depth=512, accumulator_bits=22)
    circuit = counted(row_module(spec), dsps=False)
    element = ELEMENTS["lut_array"](formats.get("w2"))
    found = row_resources(element, 16, 22, "")
    tables = 16 * 2 * lut_ram(64, element.entry_bits, 1).luts
    assert found.luts - tables == pytest.approx(circuit.luts, rel=0.1)


@pytest.mark.parametrize(("rows", "cols", "tokens", "why"), [
    (1, 1 << 17, 1, "a product of 131072 columns"),
    ((1 << 20) + 1, 32, 1, "a product of 1048577 rows"),
    (1, 32, 5000, "a product of 5000 tokens"),
])  # fmt: skip
def test_sizes_have_limits(rows, cols, tokens, why):
    with pytest.raises(NybbleError, match=why):
        make("lut_array", "w2g32", rows, cols, tokens)


def test_what_runs_out_is_named_with_how_much():
    with pytest.raises(
        FitError, match=r"does not fit kv260: [0-9,]+ BRAM too many \([0-9,]+ of 115"
    ):
        make("lut_array", "w2", 1 << 20, 64, 1, device="kv260")
    check_fits(analyse(make("lut_array", "w2", 4096, 4096, 1).kernel), find_target("u280"))


def test_the_target_answers_for_every_dataflow():
    small = Product(formats.get("w1"), 4096, 4096, 1, MODE, "u280")
    verdicts = {one.dataflow: one for one in FPGA.verdicts(small)}
    assert verdicts["lut_array"].cycles < verdicts["multiply_array"].cycles
    assert verdicts["serial_array"].refusal is None
    assert verdicts["sparse_chain"].refusal is None
    other = Product(formats.get("w1"), 512, 1024, 1, "i8", "u280")
    refusals = {one.dataflow: one.refusal for one in FPGA.verdicts(other)}
    bits = "b1-token, b2-token, b3-token, b4-token"
    assert refusals.pop("xnor_array") == f"activations i8 (accepted: {bits})"
    assert set(refusals.values()) == {f"activations i8 (accepted: {MODE})"}


@pytest.mark.parametrize(("spec", "mode", "why"), [
    ("w2", "b2-token", "are no bipolar integers of a few planes"),
    ("bip5:g=32:s=f32", "b2-token", "are no bipolar integers of a few planes"),
    ("bip2:g=32:s=f32:z=min.f16", "b1-token", "has zeros of its groups"),
    ("w1", MODE, f"activations {MODE}"),
])  # fmt: skip
def test_bits_of_other_numbers_are_not_compared(spec, mode, why):
    with pytest.raises(NybbleError, match=why):
        make("xnor_array", spec, 4, 64, 1, mode=mode)


def test_devices_are_those_with_resources():
    assert set(devices()) == {"u280", "u55c", "vhk158", "v80", "zcu104", "kv260"}
    with pytest.raises(UnknownNameError, match="unknown FPGA 'h100'"):
        find_device("h100")


@pytest.mark.parametrize("keep", [2, 4, 8])
def test_cycles_of_a_sparse_array_follow_what_it_keeps(keep):
    """FlightLLM, arXiv 2401.03868: N:16 takes N / 16 of what as many products in a cycle would."""
    spec = f"i8:g=128:s=f16:sparse={keep}of16.block16"
    made = make("sparse_chain", spec, 4096, 4096, 1)
    tiling = made.design.tiling
    in_a_cycle = tiling.lanes.data * keep * tiling.high.data
    ideal = 4096 * 4096 * keep / 16 / in_a_cycle
    (array,) = (op for op in made.kernel.processes if isinstance(op, ArrayOp))
    assert ideal <= array.cycles() <= 1.05 * ideal


def test_activations_are_padded_to_words():
    made = make("lut_array", "w2", 3, 17, 2)
    x = np.arange(34, dtype=np.float32).reshape(2, 17)
    words = pack_activation(made.design, x).view(np.float32)
    assert words.shape == (4, 16)
    assert words[1].tolist() == [16.0] + [0.0] * 15
