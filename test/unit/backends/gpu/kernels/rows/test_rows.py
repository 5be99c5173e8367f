"""Kernels between products, in the simulator, against the numpy references."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.rows.norm import NormBefore, NormSpec, norm_kernel
from nybble.backends.gpu.kernels.rows.planes import PlanesSpec, planes_kernel
from nybble.backends.gpu.kernels.rows.rotate import Part, RotateSpec, rotate_kernel
from nybble.backends.gpu.kernels.rows.simple import (
    AddSpec,
    EmbedSpec,
    GluSpec,
    LargestSpec,
    LastRowSpec,
    add_kernel,
    embed_kernel,
    glu_kernel,
    largest_kernel,
    last_row_kernel,
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
    ("rows", "columns", "length", "unit_offset", "output"),
    [
        (3, 576, 576, False, "f16"), (2, 128, 64, True, "f32"), (1, 1, 1, False, "f16"),
    ],
)  # fmt: skip
def test_norm(rows, columns, length, unit_offset, output):
    spec = NormSpec(rows, columns, length, NormBefore(1e-5, unit_offset), output)
    x, weight = normal(rows, columns), normal(length)
    y = np.full((rows, columns), np.nan, np.float16 if output == "f16" else np.float32)
    run(norm_kernel(spec), x, weight, y)
    wanted = norm.head_rms_norm(x, weight, 1e-5, offset=unit_offset)
    np.testing.assert_allclose(y, wanted, HALF if output == "f16" else 2e-6, 1e-6)


@pytest.mark.parametrize(("tokens", "size"), [(1, 64), (3, 80)])
def test_queries_keys_and_values_of_a_layer_are_one_launch(tokens, size):
    """The last token is past the end of the context where there are several."""
    context, position = 16, 14
    parts = (
        Part(3, norm=NormBefore(1e-5, unit_offset=True)),
        Part(2, cached=True, norm=NormBefore(1e-6)),
        Part(2, rotates=False, cached=True),
    )
    spec = RotateSpec(tokens, size, context, parts)
    cos, sin = normal(2, context, size // 2)
    q, k, v = (normal(tokens, one.heads * size) for one in parts)
    weights = normal(2, size)
    y = np.full((tokens, 3, size), 7, np.float16)
    keys, values = (np.full((2, context, size), 7, np.float16) for _ in range(2))
    place = np.array([position], np.int32)
    run(
        rotate_kernel(spec), place, cos, sin, q, weights[0], y, k, weights[1], keys, v, values,
    )  # fmt: skip
    fits = min(tokens, context - position)
    normed_q = norm.head_rms_norm(q, weights[0], 1e-5, offset=True)[:fits]
    normed_k = norm.head_rms_norm(k, weights[1], 1e-6)[:fits]
    wanted = rope.rope(normed_q, cos, sin, position).reshape(fits, 3, size)
    np.testing.assert_allclose(y[:fits], wanted, 2 * HALF, 1e-3)
    assert (y[fits:] == 7).all()
    for cache, rows in ((keys, rope.rope(normed_k, cos, sin, position)), (values, v[:fits])):
        wanted = rows.reshape(fits, 2, size).transpose(1, 0, 2)
        np.testing.assert_allclose(cache[:, position : position + fits], wanted, 2 * HALF, 1e-3)
        assert (cache[:, :position] == 7).all()


def test_values_alone_go_to_the_cache():
    spec = RotateSpec(2, 64, 16, (Part(2, rotates=False, cached=True),))
    rows, cache = normal(2, 128), np.full((2, 16, 64), 7, np.float16)
    run(rotate_kernel(spec), np.array([3], np.int32), rows, cache)
    wanted = rows.reshape(2, 2, 64).transpose(1, 0, 2).astype(np.float16)
    np.testing.assert_array_equal(cache[:, 3:5], wanted)
    assert (np.delete(cache, [3, 4], 1) == 7).all()


@pytest.mark.parametrize(("bits", "group", "block"), [(2, 128, 128), (3, 256, 256)])
def test_planes_of_what_is_normed(bits, group, block):
    """In 16 bits here, and with more groups than a block of threads has warps."""
    columns = 9 * group
    spec = PlanesSpec(2, columns, bits, group, block, group, NormBefore(1e-5), "f16")
    x, weight = normal(2, columns).astype(np.float16), normal(columns)
    made = [np.zeros(one.bytes, np.uint8) for one in spec.results]
    run(planes_kernel(spec), x, weight, *made)
    _, wanted = spec.reference(norm.rms_norm(x.astype(np.float32), weight, 1e-5))
    np.testing.assert_allclose(
        made[1].view(np.float32).reshape(9, -1)[:, :2], wanted["scales"], 1e-6
    )
    words = made[0].view(np.int32).reshape(2, -1) ^ wanted["x"]
    assert np.bitwise_count(words).sum() <= 4, "what lies between two integers may go either way"


def test_the_last_row():
    x, y = normal(4, 300), np.full((1, 300), np.nan, np.float32)
    run(last_row_kernel(LastRowSpec(4, 300)), x, np.array([2], np.int32), y)
    np.testing.assert_array_equal(y[0], x[2])


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
