"""Process networks against the product, on numpy alone: formats, tails, passes, refusals."""

import numpy as np
import pytest
from test.unit.backends.fpga.conftest import make, product

from nybble.backends.fpga.analysis import FitError, analyse, check_fits
from nybble.backends.fpga.dataflows import FPGA, MODE, devices, find_device
from nybble.backends.fpga.packing import pack, pack_activation
from nybble.costmodel.targets.reader import find_target
from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.dialects.fpga.arrays import ArrayOp
from nybble.dialects.lowbit import formats
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
    ("lut_array", "w2g32z", "has zeros of its groups"),
    ("lut_array", "spqr3", "has zeros of its groups"),
    ("lut_array", "u4:g=32.rows:s=f16", "is grouped across rows"),
    ("lut_array", "w8", "codes of 'w8' are no bits of a few planes"),
    ("lut_array", "nf4", "codes of 'nf4' are no bits of a few planes"),
    ("lut_array", "i4:g=32:s=f32:sparse=2of4", "is sparse"),
    ("multiply_array", "nf4", "the values of 'nf4' are no small integers"),
    ("multiply_array", "bitmod4", "have no single table of values"),
    ("sparse_chain", "w4g32", "does not keep some of so many columns"),
    ("sparse_chain", "i4:g=2:s=f32:sparse=2of4", "groups of 2 columns"),
])  # fmt: skip
def test_a_format_without_an_element_is_refused(flow, spec, why):
    with pytest.raises(NybbleError, match=why):
        make(flow, spec, 64, 256, 1)


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
    assert "NofM" in verdicts["sparse_chain"].refusal
    other = Product(formats.get("w1"), 512, 1024, 1, "i8", "u280")
    assert {one.refusal for one in FPGA.verdicts(other)} == {f"activations i8 (accepted: {MODE})"}


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
