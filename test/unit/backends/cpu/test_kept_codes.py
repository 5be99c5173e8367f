"""Weights of which N of four columns are kept: their bytes, and integer products at any level."""

from dataclasses import replace

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.emulate import compile_runnable
from nybble.backends.cpu.isa import LEVELS
from nybble.backends.cpu.kept_codes import controls, split_kept
from nybble.backends.cpu.kernels.matmul import MatmulSpec, lower_matmul, matmul_buffers
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.tile_layout import LayoutError, TileLayout
from nybble.backends.cpu.weights import pack_weight, packed_size, weight_kind
from nybble.dialects.lowbit import formats


def test_patterns_say_where_kept_codes_go():
    rng = np.random.default_rng(0)
    for keep in (1, 2):
        kept = np.argsort(rng.random((40, 16, 4)), axis=-1).reshape(40, 64) < keep
        codes = rng.integers(0, 256, kept.shape).astype(np.uint8)
        stored, patterns = split_kept(codes, kept, keep)
        places = np.array(controls(keep), np.uint32)[patterns].view(np.uint8)
        runs = np.full((40, 16, keep + 1), 77, np.uint8)
        runs[..., :keep] = stored.reshape(40, 16, keep)
        found = np.take_along_axis(runs, places.reshape(40, 16, 4).astype(int), axis=-1)
        np.testing.assert_array_equal(found.reshape(40, 64), np.where(kept, codes, 77))


def test_another_number_is_refused():
    kept = np.tile([True, False, True, False], (3, 4))
    kept[1, 5] = True
    with pytest.raises(LayoutError, match="3 of columns 4 to 7 of row 1"):
        split_kept(kept.astype(np.uint8), kept, 2)
    with pytest.raises(LayoutError, match="groups of 16 columns of which 2 of 4 are kept"):
        TileLayout(1, 32, 4, 16, keep=2)


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        ("i4:g=32:s=f16:sparse=2of4", 3.5),
        ("i4:g=32:s=f16:sparse=1of4", 2.5),
        ("i8:g=32:s=f16:sparse=2of4", 5.5),
        ("i2:g=32:s=f16:sparse=2of4", 2.5),
        ("i4:g=16:s=f16:sparse=2of4", 5),
        ("u4:g=32:s=f16:z=int.u4:sparse=2of4", 4.75),
    ],
)
def test_bits_of_a_weight(spec, bits):
    assert packed_size(formats.get(spec), (64, 256)) * 8 / (64 * 256) == bits


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("keep", [1, 2])
def test_integers_at_every_level(level, keep):
    form = formats.get(f"i4:g=32:s=f16:sparse={keep}of4")
    rng = np.random.default_rng(keep)
    weight = form.quantize(rng.standard_normal((70, 64)).astype(np.float32))
    weight = replace(weight, scale=np.ones_like(weight.scale))
    spec = MatmulSpec(weight_kind(form, 64), (70,), 64, isa=LEVELS[level])
    assert spec.weight.keep == keep
    library = load([compile_runnable(ModuleOp([lower_matmul(spec, "f")]), spec.isa)])
    q = rng.integers(-127, 128, 64).astype(np.int8)
    given = {
        "q": q,
        "s": np.ones(2, np.float32),
        "z": q.reshape(2, 32).sum(-1, dtype=np.int32),
        "w0": pack_weight(form, weight).view(np.int8),
        "y0": np.full(70, np.nan, np.float32),
    }
    library.call("f", *(given[buffer.name] for buffer in matmul_buffers(spec)), 1, 0, 0, 1)
    np.testing.assert_array_equal(given["y0"], weight.dequantize() @ q.astype(np.float32))
