"""Kernels between products, in the simulator, against the numpy references."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.rows.norm import NormSpec, norm_kernel
from nybble.backends.gpu.kernels.rows.rope import RopeSpec, rope_kernel
from nybble.backends.gpu.kernels.rows.simple import (
    AddSpec,
    EmbedSpec,
    GluSpec,
    LargestSpec,
    add_kernel,
    embed_kernel,
    glu_kernel,
    largest_kernel,
)
from nybble.backends.gpu.sim.simulate import simulate
from nybble.dialects.numpy_ref import glu, norm, rope

RANDOM = np.random.default_rng(5)
HALF = 2.0**-11


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def run(kernel, *arguments):
    image = kernel.image(find_arch("sm_90a"))
    names = [one.name for one in image.parameters]
    simulate(image, dict(zip(names, arguments, strict=True))).check()


@pytest.mark.parametrize(
    ("rows", "columns", "length", "adds", "unit_offset", "output"),
    [
        (3, 576, 576, True, False, "f16"), (2, 128, 64, False, True, "f32"),
        (1, 1, 1, False, False, "f16"),
    ],
)  # fmt: skip
def test_norm(rows, columns, length, adds, unit_offset, output):
    spec = NormSpec(rows, columns, length, 1e-5, unit_offset, adds, output)
    x, delta, weight = normal(rows, columns), normal(rows, columns), normal(length)
    y = np.full((rows, columns), np.nan, np.float16 if output == "f16" else np.float32)
    total = np.full_like(x, np.nan)
    run(norm_kernel(spec), x, weight, *((delta, total) if adds else ()), y)
    if adds:
        np.testing.assert_array_equal(total, x + delta)
        x = total
    wanted = norm.head_rms_norm(x, weight, 1e-5, offset=unit_offset)
    np.testing.assert_allclose(y, wanted, HALF if output == "f16" else 2e-6, 1e-6)


@pytest.mark.parametrize("rotates", [True, False])
def test_rope_into_rows_and_into_the_cache(rotates):
    heads, size, context, position = 3, 64, 16, 5
    x, (cos, sin) = normal(1, heads * size), normal(2, context, size // 2)
    wanted = (
        rope.rope(x, cos, sin, position).reshape(heads, size) if rotates else x.reshape(heads, size)
    )
    tables = (cos, sin) if rotates else ()
    place = np.array([position], np.int32)
    y = np.full((heads, size), np.nan, np.float16)
    run(rope_kernel(RopeSpec(heads, size, context, rotates)), x, place, *tables, y)
    np.testing.assert_allclose(y, wanted, HALF, 1e-3)
    cache = np.full((heads, context, size), 7, np.float16)
    run(rope_kernel(RopeSpec(heads, size, context, rotates, True)), x, place, *tables, cache)
    np.testing.assert_array_equal(cache[:, position], y)
    assert (np.delete(cache, position, 1) == 7).all()


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "sigmoid"])
def test_glu(activation):
    gate, up = normal(2, 300) * 4, normal(2, 300)
    gate[0, :3] = [-200, 200, 0]
    y = np.full((2, 300), np.nan, np.float16)
    run(glu_kernel(GluSpec(2, 300, activation)), gate, up, y)
    np.testing.assert_allclose(y, glu.glu(gate, up, activation), 2 * HALF, 1e-5)


def test_add():
    left, right = normal(3, 100), normal(3, 100)
    y = np.empty_like(left)
    run(add_kernel(AddSpec(3, 100)), left, right, y)
    np.testing.assert_array_equal(y, left + right)


def test_embed_keeps_inside_the_table():
    table = normal(10, 65).astype(np.float16)
    y = np.empty((4, 65), np.float32)
    run(embed_kernel(EmbedSpec(4, 65, 10, 2.0)), np.array([3, 9, -1, 99], np.int32), table, y)
    np.testing.assert_array_equal(y, 2 * table[[3, 9, 0, 9]].astype(np.float32))


def test_the_first_of_the_largest():
    x = normal(4, 1000)
    x[0, [20, 700]] = 9
    x[1] = -3e38
    x[2, 999] = 9
    x[3] = -np.inf
    ids = np.full(4, -1, np.int32)
    run(largest_kernel(LargestSpec(4, 1000)), x, ids)
    assert ids[:3].tolist() == [20, 0, 999]
    assert 0 <= ids[3] < 1000
