"""Lookup tables of activations, bit for bit against the reference, alone and fused."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.norm import RmsNorm
from nybble.backends.cpu.kernels.tables import (
    BuildTables,
    QuantizeTables,
    RmsNormQuantizeTables,
    TableRows,
)
from nybble.dialects.numpy_ref.lookup import build_tables
from nybble.dialects.numpy_ref.quantize import quantize_rows

FORMS = [(exact, symmetric) for exact in (True, False) for symmetric in (True, False)]


def entries_of(out, tables, n):
    """i32 [n, width / 4, 16] out of the bytes of each digit."""
    kind = tables.entries
    data = out["t"].view(np.uint8)[: n * tables.row_bytes].astype(np.int32)
    digits = data.reshape(n, -1, kind.digits, 4, 16)
    assert digits.max() < 2**kind.bits or kind.digits == 1
    values = sum(digits[:, :, i] << kind.bits * i for i in range(kind.digits))
    return (values - kind.bias).reshape(n, -1, 16)


def check(out, tables, q, s, z):
    n = len(q)
    want = build_tables(q.astype(np.int32), s, symmetric=tables.symmetric, exact=tables.exact)
    np.testing.assert_array_equal(entries_of(out, tables, n), want.all_entries())
    np.testing.assert_array_equal(out["s"][: s.size], s.reshape(-1))
    np.testing.assert_array_equal(out["z"][: z.size], z.reshape(-1))
    if not tables.exact:
        np.testing.assert_array_equal(out["u"][: s.size], want.unit.reshape(-1))


@pytest.mark.parametrize(("exact", "symmetric"), FORMS)
@pytest.mark.parametrize(("rows", "threads"), [(1, 3), (5, 2)])
def test_tables_of_integers(run, rng, exact, symmetric, rows, threads):
    tables = TableRows(320, rows, 64, exact, symmetric)
    x = rng.standard_normal((rows, 320)).astype(np.float32)
    x[0, :64] = 0
    q, s, z = quantize_rows(x, 64)
    q[0, 64:72] = (127, 127, 127, 127, -127, -127, -127, -127)
    out = run(BuildTables(tables), n=rows, threads=threads, q=q, qs=s, qz=z)
    check(out, tables, q, s, z)


@pytest.mark.parametrize(("exact", "symmetric"), FORMS)
@pytest.mark.parametrize(("rows", "n", "threads"), [(1, 1, 4), (9, 7, 2)])
def test_fused_with_the_quantization(run, rng, exact, symmetric, rows, n, threads):
    kernel = QuantizeTables(256, rows, 32, exact=exact, symmetric=symmetric)
    x = rng.standard_normal((n, 256)).astype(np.float32) * 3
    out = run(kernel, n=n, threads=threads, x=x)
    check(out, kernel.output.tables, *quantize_rows(x, 32))


@pytest.mark.parametrize(("exact", "symmetric"), [(True, True), (False, False)])
@pytest.mark.parametrize("rows", [1, 3])
def test_fused_with_norm_and_quantization(run, rng, exact, symmetric, rows):
    x = rng.standard_normal((rows, 256)).astype(np.float32) * 3
    w = rng.standard_normal(256).astype(np.float32)
    normed = run(RmsNorm(256, rows, 1e-5), n=rows, x=x, w=w)["out"][: x.size].reshape(x.shape)
    kernel = RmsNormQuantizeTables(256, rows, 1e-5, 128, exact=exact, symmetric=symmetric)
    out = run(kernel, n=rows, threads=2, x=x, w=w)
    check(out, kernel.output.tables, *quantize_rows(normed, 128))


@pytest.mark.parametrize(
    ("width", "group", "fault"), [(100, 32, "row length 100"), (96, 48, "group size 48")]
)
def test_shapes_that_do_not_fit(width, group, fault):
    with pytest.raises(ValueError, match=fault):
        TableRows(width, 1, group)
