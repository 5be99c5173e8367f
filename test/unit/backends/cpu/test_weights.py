"""Every number format multiplies as its decoded values do, one token and many."""

from dataclasses import replace

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.isa import X86_64_V3
from nybble.backends.cpu.kernels.matmul import Codes, MatmulSpec, lower_matmul, matmul_buffers
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import cpu_flags, for_level
from nybble.backends.cpu.packing import unpack_dense
from nybble.backends.cpu.tile_layout import LayoutError
from nybble.backends.cpu.weights import added_of, layout_of, pack_weight, weight_kind
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.weight import Outlying
from nybble.dialects.numpy_ref.quantize import activation_group, dequantize_rows, quantize_rows
from nybble.tools.random_values import random_weight

ROWS, TOKENS = 70, 5
NAMES = [
    "f32", "bf16", "q4_0", "q4_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k",
    "q6_k", "iq4_nl", "iq4_xs", "mxfp4", "nvfp4", "mxfp6_e2m3", "mxfp6_e3m2",
    "mxfp8_e4m3", "mxfp8_e5m2", "fp4", "nf4", "bnb_fp4", "b1_58", "w1g128",
    "w3g32", "w4g16", "w4g32z", "w5g64m", "w8", "w4g1024m", "w3g48",
    "bitmod3", "bitmod4g64", "bip5:g=32:s=f16", "bip8:g=64:s=bf16",
    "table[-1.5,0.25,1.0,9.0]:g=64:s=f16",
    "table[-3.0,1.0,2.0,5.0]:g=32:s=f32:z=min.f32",
]  # fmt: skip
PARTS = [
    "df11", "spqr3", "nvfp4_scaled", "i4:g=32:s=f16:sparse=2of4",
    "u4:g=32:s=f16:z=int.u4:sparse=csr.300", "u4:g=32:s=f16:z=min.f16:sparse=bitmap.400",
    "bip4:g=32:s=f16:sparse=2of4", "nf4:g=64:s=f32:sparse=bcsr2x32.500",
    "nf4:g=64:s=f32:fix=lowrank.3.f16", "i4:g=64:s=f16:fix=outliers.coo.20.f32:fix=lowrank.5.bf16",
    "f16:fix=outliers.csr.30.f32", "i4:g=32:s=f16:fix=hadamard.64:fix=smooth", "i4:g=7.rows:s=f16",
    "f16:sparse=2of4", "bf16:fix=hadamard.64", "f16:fix=smooth",
    "u4:g=32:s=f16:z=int.u8:sparse=2of4", "u4:g=32x16.tile:s=u4*bf16+min",
    "u2:g=16x16.tile:s=u5*f16+min:z=scaled.u3*f16+min", "i3:g=32x4.tile:s=u4*f16+min",
    "i4:g=32:s=f16:sparse=1of4", "i8:g=64:s=f16:sparse=2of4.block2", "nf4:g=64:s=f32:sparse=2of4",
    "i6:g=128:s=f16:sparse=1of4", "e4m3:g=32:s=f32:sparse=2of4", "i5:g=64:s=f16:sparse=4of16",
    "i4:g=32x8:s=u6*f16:sparse=2of4:fix=outliers.csr.10.f16",
]  # fmt: skip
GRIDS = ["iq1_s", "iq1_m", "iq2_xs", "iq3_xxs", "iq3_s"]
MANY_TOKENS = {
    "bf16", "q2_k", "q4_1", "q6_k", "iq4_xs", "mxfp4", "mxfp8_e4m3", "nf4", "w1g128", "w3g32",
    "w4g32z", "bitmod4g64", "bip8:g=64:s=bf16", "iq2_xs",
    "i4:g=64:s=f16:fix=outliers.coo.20.f32:fix=lowrank.5.bf16", "df11", "spqr3",
    "i4:g=32:s=f16:sparse=2of4", "i6:g=128:s=f16:sparse=1of4",
}  # fmt: skip
"""The formats that many tokens are multiplied with too: one of each way to read weights."""

pytestmark = pytest.mark.skipif(not X86_64_V3.needs <= cpu_flags(), reason="needs AVX2")


@pytest.fixture
def rng(request):
    return np.random.default_rng(sum(map(ord, request.node.name)))


def columns(form):
    return form.block * max(1, 256 // form.block)


def specs_of(form, cols):
    kind, added = weight_kind(form, cols), added_of(form, cols)
    decoded = MatmulSpec(kind, (ROWS,), cols, activations="f32", added=added, isa=X86_64_V3)
    specs = [decoded]
    if isinstance(kind, Codes) and kind.integers is not None:
        group = activation_group(kind.group)
        specs.append(replace(decoded, activations="a8", activation_group=group))
        if added:
            specs.append(replace(specs[-1], digits=2))
    if form.spec in MANY_TOKENS:
        specs += [replace(spec, tokens=TOKENS) for spec in specs]
    return specs


def multiply(specs, packed, x):
    """What each spec's kernel gives for its tokens of x, and the x it stands for."""
    kernels = [lower_matmul(spec, f"k{i}") for i, spec in enumerate(specs)]
    library = load([compile_module(ModuleOp(kernels), for_level(X86_64_V3), opt=1)])
    for index, spec in enumerate(specs):
        rows = x[: spec.tokens]
        given, meant = {"x": rows, "w0": packed}, rows
        if spec.activations == "a8":
            q, s, z = quantize_rows(rows, spec.activation_group, spec.digits)
            meant = dequantize_rows(q, s)
            if spec.digits > 1:
                q = np.pad(q, ((0, 0), (0, spec.padded - len(rows)), (0, 0)))
            given = {"q": q, "s": s, "z": z, "w0": packed}
        arrays = []
        for buffer in matmul_buffers(spec):
            array = np.zeros(buffer.size, {"f32": "f4", "i32": "i4", "i8": "i1"}[str(buffer.dtype)])
            if buffer.name in given:
                flat = given[buffer.name].reshape(-1).view(array.dtype)
                array[: flat.size] = flat
            arrays.append(array)
        library.call(f"k{index}", *arrays, spec.tokens, 0, 0, 1)
        names = [buffer.name for buffer in matmul_buffers(spec)]
        out = arrays[names.index("y0")][: spec.tokens * ROWS].reshape(spec.tokens, ROWS)
        yield spec, out, meant


def check(specs, packed, values, rng):
    x = rng.standard_normal((TOKENS, values.shape[1])).astype(np.float32)
    for spec, got, meant in multiply(specs, packed, x):
        want = meant.astype(np.float64) @ values.astype(np.float64).T
        error = np.square(got - want).sum() / np.square(want).sum()
        assert error < 1e-11, f"{spec.activations}, {spec.tokens} tokens"


@pytest.mark.parametrize("name", [*NAMES, *PARTS])
def test_product(rng, name):
    form = formats.get(name)
    cols = columns(form)
    weight = form.quantize(rng.standard_normal((ROWS, cols)).astype(np.float32))
    check(specs_of(form, cols), pack_weight(form, weight), weight.dequantize(), rng)


@pytest.mark.parametrize("name", GRIDS)
def test_vector_codebooks(rng, name):
    form = formats.get(name)
    weight = random_weight(form, (ROWS, 512), rng)
    assert weight_kind(form, 512).integers is not None
    check(specs_of(form, 512), pack_weight(form, weight), weight.dequantize(), rng)


@pytest.mark.parametrize("name", ["bf16:fix=hadamard.64", "f16:fix=smooth", "f16:fix=hadamard.32"])
def test_a_change_of_basis_rounds_no_plain_float_again(rng, name):
    form = formats.get(name)
    weight = form.quantize(rng.standard_normal((ROWS, 64)).astype(np.float32))
    layout = layout_of(form, (ROWS, 64))
    np.testing.assert_array_equal(
        unpack_dense(pack_weight(form, weight), layout), weight.dequantize()
    )


def test_zeros_that_no_code_reaches(rng):
    form = formats.get("u4:g=32:s=f16:z=int.u8:sparse=2of4")
    weight = form.quantize(rng.standard_normal((ROWS, 64)).astype(np.float32))
    far = np.full_like(weight.zero_codes, 200)
    weight = replace(weight, zero_codes=far, zero=-(weight.scale * far))
    check(specs_of(form, 64), pack_weight(form, weight), weight.dequantize(), rng)


@pytest.mark.parametrize("name", ["q4_1", "q2_k", "iq4_nl", "w4g32z", "bitmod3"])
def test_wild_scales_stay_in_their_row(rng, name):
    form = formats.get(name)
    cols = columns(form)
    weight = form.quantize(rng.standard_normal((ROWS, cols)).astype(np.float32))
    scale = weight.scale if weight.scale_parts is None else weight.scale_parts.base
    scale[3, 0], scale[4, 0], scale[5, 0] = np.inf, np.nan, 2.0**-24
    if weight.scale_parts is not None:
        with np.errstate(invalid="ignore"):
            expanded = weight.scale_parts.spread(scale) * weight.scale_parts.codes
        weight = replace(weight, scale=expanded)
    if weight.zero_codes is not None:
        weight = replace(weight, zero=-(weight.scale * weight.zero_codes))
    values = weight.dequantize().astype(np.float64)
    x = rng.standard_normal((TOKENS, cols)).astype(np.float32)
    for spec, got, meant in multiply(specs_of(form, cols), pack_weight(form, weight), x):
        assert not np.isfinite(got[:, 3:5]).any()
        kept = np.delete(values, [3, 4], axis=0)
        want = meant.astype(np.float64) @ kept.T
        bound = cols * 2.0**-22 * (np.abs(meant).astype(np.float64) @ np.abs(kept).T)
        assert (np.abs(np.delete(got, [3, 4], axis=1) - want) <= bound).all(), spec.activations


@pytest.mark.parametrize(
    ("name", "cols", "message"),
    [
        ("a16g32", 64, "is a format of activations"),
        ("w4g32", 48, "no whole groups of 32"),
        ("q4_k", 128, "no whole groups of 256"),
        ("w4g6", 48, "groups of 6 columns do not fill"),
        ("w4", 37, "groups of 37 columns do not fill"),
    ],
)
def test_refused(name, cols, message):
    with pytest.raises(NybbleError, match=message):
        layout_of(formats.get(name), (4, cols))


def test_more_outliers_than_there_is_room_for():
    form = formats.get("i4:g=32:s=f16:fix=outliers.csr.10.f16")
    values = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    weight = form.quantize(values)
    many = Outlying(np.zeros(6, np.int32), np.arange(6, dtype=np.int32), np.ones(6, np.float32))
    with pytest.raises(LayoutError, match="6 outliers in a weight of 8 x 64"):
        pack_weight(form, replace(weight, outliers=many))
