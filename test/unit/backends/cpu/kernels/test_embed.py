"""Embedding rows out of packed layouts against the dequantized table."""

import numpy as np
import pytest

from nybble.backends.cpu import packing
from nybble.backends.cpu.kernels.embed import Embed
from nybble.backends.cpu.kernels.matmul import Dense
from nybble.backends.cpu.weights import added_of, pack_weight, weight_kind
from nybble.dialects.lowbit import formats

VOCAB = 150


NAMES = [
    "q4_0", "q4_1", "q8_0", "w2g64", "w4g128", "w3g64", "w1g32", "q6_k", "nf4", "iq4_xs", "fp4",
    "mxfp4", "mxfp6_e2m3", "fp8_e4m3", "bitmod3", "bitmod4g64", "df11", "spqr3",
    "i4:g=32:s=f16:sparse=2of4",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "n", "threads"), [(1, 1, 1), (1, 1, 3), (20, 7, 2)])
def test_codes(run, rng, name, rows, n, threads):
    table = rng.standard_normal((VOCAB, 256)).astype(np.float32)
    form = formats.get(name)
    weight = form.quantize(table)
    data = pack_weight(form, weight).view(np.int8)
    ids = np.r_[VOCAB - 1, rng.integers(0, VOCAB, n)][:n].astype(np.int32)
    spec = Embed(weight_kind(form, 256), table.shape, rows, 1.5, added=added_of(form, 256))
    out = run(spec, n=n, threads=threads, ids=ids, table=data)["out"]
    want = weight.dequantize()[ids] * np.float32(1.5)
    np.testing.assert_allclose(out[: want.size].reshape(want.shape), want, rtol=1e-6, atol=1e-6)
    assert np.all(np.isnan(out[want.size :]))


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("rows", "n"), [(1, 1), (9, 5)])
def test_floats(run, rng, dtype, rows, n):
    table = rng.standard_normal((VOCAB, 40)).astype(np.float32)
    layout = packing.DenseLayout(VOCAB, 40, dtype)
    data = packing.pack_dense(table, layout)
    ids = rng.integers(0, VOCAB, n).astype(np.int32)
    out = run(
        Embed(Dense(dtype), (VOCAB, 40), rows), n=n, threads=2, ids=ids, table=data.view(np.int8)
    )["out"]
    want = packing.unpack_dense(data, layout)[ids]
    np.testing.assert_array_equal(out[: want.size].reshape(want.shape), want)
