"""Networks of operators on numpy alone: against the operators' f64 references; what is refused."""

import numpy as np
import pytest
from test.unit.backends.fpga import launches
from test.unit.backends.fpga.conftest import BITMOD
from test.unit.backends.fpga.launches import Launch

from nybble.backends.fpga.analysis import FitError, analyse
from nybble.backends.fpga.depths import waiting
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.rows import ForkOp, stream_type

CODED = '!sparse_attn.cache<keys 1x64x4, "kv8", 65>'
FAMILIES = (
    (launches.norm(1, 1, 1), 1e-6),
    (launches.norm(3, 14, 7), 1e-6),  # a weight for each of two heads, no even word
    (launches.norm(2, 544, 544, "unit_offset"), 1e-6),  # more words than partial sums
    (launches.gate(2, 3, "silu"), 1e-6),
    (launches.gate(1, 48, "gelu_tanh"), 1e-6),
    (launches.softmax(1, 1), 1e-6),
    (launches.softmax(3, 14), 1e-6),
    (launches.softmax(2, 544), 1e-6),
    (launches.gate(1, 48, "sigmoid"), 1e-6),
    (launches.turn(2, 3, 6), 4e-7),
    (launches.append(3, 4, 6), 0),
    (launches.attention(1, 1, 2, 1), 5e-6),
    (launches.attention(2, 3, 24, 40, "f32"), 5e-6),
    (launches.attention(1, 2, 272, 19), 5e-6),  # more words than partial sums
    (launches.residual(40), 1e-6),
    (launches.block(), 0.05),
)


@pytest.mark.parametrize(("text", "bound"), FAMILIES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_results_are_near_the_operators(text, bound, scale):
    launch, random = Launch(text), np.random.default_rng(0)
    launch.network.kernel.verify()
    values = launch.values(random, 0 if "x1x2xf16" in text else 4, scale)
    for found, wanted in zip(launch.reference(values), launch.meaning(values), strict=True):
        assert found.shape == wanted.shape
        assert found.dtype == wanted.dtype
        lost = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
        assert lost <= bound * np.abs(wanted.astype(np.float64)).max() + 1e-30


@pytest.mark.parametrize(("spec", "activations", "part"), [
    ("w2g32z", "i8-token", "totals"),
    (BITMOD, "i8-token", "fpga.scale_groups"),
    ("w1", "b1-token", "planes 1"),
])  # fmt: skip
def test_products_of_a_chain_add_zeros_and_a_bias(spec, activations, part):
    launch = Launch(launches.projection(128, spec), lanes=4, activations=activations)
    assert part in str(launch.network.kernel)
    launch.network.kernel.verify()
    values = launch.values(np.random.default_rng(3))
    (found,), (wanted,) = launch.reference(values), launch.meaning(values)
    assert np.abs(found - wanted).max() <= 0.05 * np.abs(wanted).max()
    hows = [one.how for one in launch.network.inputs]
    assert sorted(hows) == ["bias", "rows", "rows", "weight"]


@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_lanes_do_not_change_what_is_computed(lanes):
    launch, random = Launch(launches.attention(2, 2, 8, 9), lanes=lanes), np.random.default_rng(1)
    values = launch.values(random, 7)
    (found,), (wanted,) = launch.reference(values), launch.meaning(values)
    assert np.abs(found - wanted).max() <= 1e-6
    assert {one.lanes for one in launch.network.outputs} == {lanes}


@pytest.mark.parametrize("mask", [
    "window(1)", "window(3)", "window(9)", "sink(1)+window(2)", "streaming(2,3)",
    "sink(8)+window(9)",
])  # fmt: skip
def test_a_window_leaves_out_what_is_before_it(mask):
    launch, random = Launch(launches.attention(2, 2, 4, 9, mask=mask)), np.random.default_rng(1)
    launch.network.kernel.verify()
    for position in range(9):
        values = launch.values(random, position)
        (found,), (wanted,) = launch.reference(values), launch.meaning(values)
        assert np.abs(found - wanted).max() <= 1e-6


def test_a_position_past_the_end_is_the_last():
    launch, random = Launch(launches.attention(1, 1, 4, 5)), np.random.default_rng(2)
    values = launch.values(random, 4)
    (last,) = launch.reference(values)
    for position in (5, 1000, 2**32 - 1):
        (found,) = launch.reference([*values[:-1], position])
        assert np.array_equal(found, last)


def test_a_fifo_is_as_deep_as_a_norm_makes_a_row_wait():
    kernel = Launch(launches.residual(64), lanes=4).network.kernel
    (fork,) = (op for op in kernel.processes if isinstance(op, ForkOp))
    waits = sorted(one.words for one in waiting(kernel, fork).values())
    assert waits == [0, 15, 15]  # 16 words of a row: to the square, to its scale, to the sum
    assert max(stream_type(one).depth.data for one in fork.copies) >= 16


def test_a_chain_costs_all_its_processes():
    small, block = analyse(Launch(launches.residual(64)).network.kernel), Launch(launches.block())
    whole = analyse(block.network.kernel)
    assert whole.cycles > small.cycles
    assert all(whole.resources[name] >= small.resources[name] for name in ("lut", "dsp", "bram"))


@pytest.mark.parametrize(("text", "why"), [
    (launches.norm(2, 8, 8).replace("<2x", "<?x"), "a number of tokens that is not known"),
    (launches.attention(1, 1, 4, 5).replace("causal", "stride(2,2,0)"), "a mask 'stride"),
    (launches.attention(1, 1, 4, 5).replace("0.25", "0.25 softcap 1.0"), "with a soft cap"),
    (launches.attention(1, 1, 4, 5).replace("<1x4x", "<2x4x"), "queries of several tokens"),
    (
        launches.append(1, 4, 5).replace("tensor<1x5x4xf16>", CODED),
        "sparse_attn.cache<.* has no kernel on an FPGA",
    ),
])  # fmt: skip
def test_what_has_no_kernel_is_refused(text, why):
    with pytest.raises(NybbleError, match=why):
        _ = Launch(text).network


def test_what_does_not_fit_is_refused_with_what_runs_out():
    with pytest.raises(FitError, match=r"does not fit kv260: .* BRAM too many"):
        _ = Launch(launches.norm(1, 1 << 21, 1 << 21), device="kv260").network
