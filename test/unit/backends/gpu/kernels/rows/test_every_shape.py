"""Every kernel of rows on every architecture, at twenty shapes with and without tails."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import ARCHS, IMAGINED, find_arch
from nybble.backends.gpu.kernels.attention.lists import ListsSpec, lists_kernel
from nybble.backends.gpu.kernels.attention.parts import (
    FinishSpec,
    MergeSpec,
    finish_kernel,
    merge_kernel,
)
from nybble.backends.gpu.kernels.rows.norm import NormBefore, NormSpec, norm_kernel
from nybble.backends.gpu.kernels.rows.planes import PlanesSpec, planes_kernel
from nybble.backends.gpu.kernels.rows.quantize import QuantizeSpec, quantize_kernel
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
from nybble.dialects.numpy_ref import glu, merge, norm, rope

pytestmark = pytest.mark.exhaustive
SHAPES = [
    # less than a warp, a warp, what a block of threads takes in one round, or a bit more
    (1, 1), (1, 7), (2, 31), (1, 32), (3, 33), (2, 64), (5, 65), (1, 100), (4, 127), (2, 128),
    (3, 129), (1, 255), (2, 256), (1, 257), (3, 300), (7, 64), (1, 511), (2, 512), (1, 1000),
    (9, 40),
]  # fmt: skip
HALF = 2.0**-11


@pytest.fixture(params=[one for one in ARCHS if one not in IMAGINED])
def run(request):
    """A function that runs a kernel on buffers, in order, on each architecture."""

    def launch(kernel, *arguments):
        image = kernel.image(find_arch(request.param))
        names = [one.name for one in image.parameters]
        simulate(image, dict(zip(names, arguments, strict=True))).check()

    return launch


@pytest.fixture
def normal():
    """A function that gives random numbers of a shape."""
    random = np.random.default_rng(5)
    return lambda *shape: random.standard_normal(shape).astype(np.float32)


def nothing(*shape, dtype=np.float32):
    return np.full(shape, np.nan if dtype != np.int32 else -7, dtype)


@pytest.mark.parametrize("output", ["f16", "f32"])
def test_norms(run, normal, output):
    dtype = {"f16": np.float16, "f32": np.float32}[output]
    for rows, columns in SHAPES:
        x, weight, y = normal(rows, columns), normal(columns), nothing(rows, columns, dtype=dtype)
        spec = NormSpec(rows, columns, columns, NormBefore(1e-5), output)
        run(norm_kernel(spec), x, weight, y)
        wanted = norm.rms_norm(x, weight, 1e-5)
        np.testing.assert_allclose(y, wanted, HALF if output == "f16" else 4e-6, 1e-6)


def test_sums_gates_and_the_last_row(run, normal):
    for rows, columns in SHAPES:
        left, right, y = normal(rows, columns), normal(rows, columns), nothing(rows, columns)
        run(add_kernel(AddSpec(rows, columns)), left, right, y)
        np.testing.assert_array_equal(y, left + right)
        halves = nothing(rows, columns, dtype=np.float16)
        run(glu_kernel(GluSpec(rows, columns, "silu")), left, right, halves)
        np.testing.assert_allclose(halves, glu.glu(left, right, "silu"), 2 * HALF, 1e-5)
        last = nothing(1, columns)
        place = np.array([rows - 1], np.int32)
        run(last_row_kernel(LastRowSpec(rows, columns)), left, place, last)
        np.testing.assert_array_equal(last[0], left[-1])


def test_embeddings_and_the_largest(run, normal):
    for rows, columns in SHAPES:
        table = normal(11, columns).astype(np.float16)
        ids, y = np.arange(rows, dtype=np.int32) * 5 % 11, nothing(rows, columns)
        run(embed_kernel(EmbedSpec(rows, columns, 11, 2.0)), ids, table, y)
        np.testing.assert_array_equal(y, 2 * table[ids].astype(np.float32))
        x, best = normal(rows, columns), nothing(rows, dtype=np.int32)
        run(largest_kernel(LargestSpec(rows, columns)), x, best)
        np.testing.assert_array_equal(best, x.argmax(axis=1))


def test_quantizations(run, normal):
    for turn, (rows, columns) in enumerate(SHAPES):
        cols = 64 * (1 + columns % 7)
        spec = QuantizeSpec(rows, cols, (16, 32)[turn % 2], (0, 2, 1, 3), 64)
        x = normal(rows, cols)
        made = {one.name: np.zeros(one.bytes, np.uint8) for one in spec.results}
        run(quantize_kernel(spec), x, *made.values())
        _, wanted = spec.reference(x)
        np.testing.assert_array_equal(made["x"].view(np.int8).reshape(rows, -1), wanted["x"])
        np.testing.assert_array_equal(made["scales"].view(np.float32), wanted["scales"][0])
        totals = made["totals"].view(np.float32).reshape(cols // 64, -1)[:, :rows]
        np.testing.assert_array_equal(totals, wanted["totals"])


def test_planes(run, normal):
    for turn, (rows, columns) in enumerate(SHAPES):
        bits, cols = 1 + turn % 4, 128 * (1 + columns % 5)
        spec = PlanesSpec(rows, cols, bits, 128, 128, 128)
        x = normal(rows, cols)
        made = [np.zeros(one.bytes, np.uint8) for one in spec.results]
        run(planes_kernel(spec), x, *made)
        _, wanted = spec.reference(x)
        scales = made[1].view(np.float32).reshape(cols // 128, -1)[:, :rows]
        np.testing.assert_allclose(scales, wanted["scales"], 1e-6)
        words = made[0].view(np.int32).reshape(rows, -1) ^ wanted["x"]
        assert np.bitwise_count(words).sum() <= 2 * rows, "what lies between two may go either way"


def test_rotations_and_appends(run, normal):
    context = 24
    for turn, (tokens, columns) in enumerate(SHAPES):
        size, heads, position = 2 * (1 + columns % 64), 1 + turn % 3, turn % 14
        norms = NormBefore(1e-5) if turn % 2 else None
        parts = (Part(heads, norm=norms), Part(1, cached=True), Part(1, rotates=False, cached=True))
        spec = RotateSpec(tokens, size, context, parts)
        cos, sin = normal(2, context, size // 2)
        q, k, v = (normal(tokens, one.heads * size) for one in parts)
        weight, place = normal(size), np.array([position], np.int32)
        y = nothing(tokens, heads * size, dtype=np.float16)
        keys, values = (np.full((1, context, size), 7, np.float16) for _ in "kv")
        given = [weight] if norms else []
        run(rotate_kernel(spec), place, cos, sin, q, *given, y, k, keys, v, values)
        turned = norm.head_rms_norm(q, weight, 1e-5) if norms else q
        np.testing.assert_allclose(y, rope.rope(turned, cos, sin, position), 2 * HALF, 2e-3)
        span = slice(position, position + tokens)
        np.testing.assert_allclose(
            keys[0, span], rope.rope(k, cos, sin, position), 2 * HALF, 2e-3
        )  # fmt: skip
        np.testing.assert_array_equal(values[0, span], v.astype(np.float16))
        assert (np.delete(values[0], span, 0) == 7).all()


def test_parts_are_merged_and_finished(run, normal):
    for rows, columns in SHAPES:
        sides = []
        for _ in range(2):
            most, total, acc = normal(rows, 1), np.abs(normal(rows, 1)) + 0.5, normal(rows, columns)
            most[0], total[0], acc[0] = -np.inf, 0, 0
            sides.append((most, total, acc))
        made = nothing(rows, 1), nothing(rows, 1), nothing(rows, columns)
        run(merge_kernel(MergeSpec(rows, columns)), *sides[0], *sides[1], *made)
        wide = [(m, s, a[:, None]) for m, s, a in sides]
        wanted = merge.merge(*wide)
        for found, one in zip(made, wanted, strict=True):
            np.testing.assert_allclose(found, one.reshape(found.shape), 1e-5, 1e-6)
        y = nothing(rows, columns, dtype=np.float16)
        run(finish_kernel(FinishSpec(rows, columns, "f16")), made[1], made[2], y)
        exact = merge.finish(made[1], made[2][:, None])[:, 0]
        np.testing.assert_allclose(y, exact, 2 * HALF, 1e-4)


def test_lists(run):
    random = np.random.default_rng(2)
    for turn, (heads, entries) in enumerate(SHAPES):
        blocks, copies = 1 + (37 * turn) % 300, 1 + turn % 3
        given = random.integers(-1, blocks + 2, (heads, entries)).astype(np.int32)
        found = nothing(heads, copies, blocks, dtype=np.int32)
        counts = nothing(heads, copies, dtype=np.int32)
        run(lists_kernel(ListsSpec(heads, copies, entries, blocks)), given, found, counts)
        for head, row in enumerate(given):
            wanted = sorted({int(one) for one in row if 0 <= one < blocks})
            for copy in range(copies):
                assert found[head, copy, : counts[head, copy]].tolist() == wanted
                assert 0 <= found[head, copy, 0] < blocks
