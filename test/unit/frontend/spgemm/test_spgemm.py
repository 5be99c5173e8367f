"""`nybble.spgemm` on matrices of other libraries and on files."""

import warnings

import numpy as np
import pytest

import nybble
from nybble.backends.cpu.spgemm.weights import PartedWeight
from nybble.dialects.lowbit import formats
from nybble.dialects.sparse_attn import masks
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.layouts import Layout
from nybble.dialects.spgemm.packed import pack
from nybble.frontend.sparse_files import from_any, from_torch, read, to_scipy

sparse = pytest.importorskip("scipy.sparse")


def random(shape, seed=0, kind="csr"):
    rng = np.random.default_rng(seed)
    return sparse.random(*shape, density=0.2, format=kind, rng=rng)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dia", "bsr"])
def test_scipy_formats_multiply_as_scipy_does(kind):
    a, b = random((30, 40), 1, kind), random((40, 20), 2, kind)
    found = nybble.spgemm.matmul(a, b, threads=2)
    assert abs(found - a @ b).max() < 1e-15
    dense = nybble.spgemm.matmul(a, b, dense=True, threads=1)
    np.testing.assert_allclose(dense, (a @ b).toarray(), rtol=1e-12)


def test_semirings_and_masks():
    graph = sparse.csr_array(random((20, 20)) != 0)
    reached = nybble.spgemm.matmul(graph, graph, semiring="or_and", threads=1)
    np.testing.assert_array_equal(reached.toarray() != 0, (graph.astype(int) @ graph).toarray() > 0)
    missing = nybble.spgemm.matmul(
        graph, graph, semiring="or_and", mask=graph, complement=True, dense=True, threads=1
    )
    assert not (missing.astype(bool) & graph.toarray()).any()


def test_attention_is_softmax_over_the_mask():
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((16, 8), np.float32) for _ in range(3))
    mask = random((16, 16), 3) + sparse.eye_array(16)
    found = nybble.spgemm.attention(q, k, v, mask, threads=1)
    scores = np.where(mask.toarray() != 0, q @ k.T / np.sqrt(8), -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, weights / weights.sum(axis=1, keepdims=True) @ v, rtol=1e-4)
    np.testing.assert_allclose(
        nybble.spgemm.spmm(nybble.spgemm.sddmm(q, k, mask, threads=1), v, threads=1),
        np.where(mask.toarray() != 0, q @ k.T, 0) @ v,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("text", ["causal", "window(5)", "streaming(2,6)", "stride(4,2)+window(2)"])
def test_masks_of_attention_prune_products(text):
    rng = np.random.default_rng(6)
    q, k, v = (rng.standard_normal((40, 8), np.float32) for _ in range(3))
    mask = nybble.spgemm.seen(text, 12, 40)
    positions = np.arange(40)
    wanted = masks.dense(masks.parse(text), positions[28:], positions)[0]
    np.testing.assert_array_equal(mask.toarray() != 0, wanted)
    found = nybble.spgemm.attention(q[28:], k, v, mask, threads=1)
    scores = np.where(wanted, q[28:] @ k.T / np.sqrt(8), -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, weights / weights.sum(axis=1, keepdims=True) @ v, rtol=1e-4)
    square = nybble.spgemm.seen(text, 40)
    steps = nybble.spgemm.matmul(square, square, semiring="or_and", mask=square, threads=1)
    again = (square.toarray().astype(int) @ square.toarray() > 0) & (square.toarray() != 0)
    np.testing.assert_array_equal(steps.toarray() != 0, again)


def test_masks_that_have_no_places_are_refused():
    with pytest.raises(SparseError, match="5 queries of 4 keys"):
        nybble.spgemm.seen("causal", 5, 4)
    with pytest.raises(SparseError, match="selects keys by values"):
        nybble.spgemm.seen("kept(4)", 5)
    assert nybble.spgemm.seen("causal", 0, 4).shape == (0, 4)


def test_a_feed_forward_of_pruned_weights():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((5, 64), np.float32)
    up, down = (
        formats.get("i8:g=32:s=f16:sparse=2of4").quantize(
            rng.standard_normal(shape).astype(np.float32) - shift
        )
        for shape, shift in (((96, 64), 0.2), ((32, 96), 0))
    )
    hidden = np.maximum(x @ up.dequantize().T, 0)
    assert 0.2 < (hidden == 0).mean() < 0.9
    wanted = hidden @ down.dequantize().T
    for weights in ((up, down), [PartedWeight.of(one) for one in (up, down)], (up, from_any(down))):
        found = nybble.spgemm.relu_ffn(x, *weights, threads=1)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    packed = pack(from_any(down), Layout.parse("nm(2:4)"))
    np.testing.assert_allclose(
        nybble.spgemm.linear(hidden, packed, threads=1), wanted, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr"])
def test_torch_layouts(layout):
    torch = pytest.importorskip("torch")
    dense = torch.from_numpy(random((8, 12), 4).toarray())
    dense[0, 1] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        made = {
            "csr": dense.to_sparse_csr,
            "csc": dense.to_sparse_csc,
            "coo": dense.to_sparse,
            "bsr": lambda: dense.to_sparse_bsr((2, 3)),
        }[layout]()
    np.testing.assert_array_equal(from_any(made).to_dense(), dense.numpy())
    with pytest.raises(SparseError, match=r"layout torch\.strided"):
        from_torch(dense)


def test_what_is_out_of_order_is_sorted_and_added_up():
    torch = pytest.importorskip("torch")
    start, index = torch.tensor([0, 3, 4]), torch.tensor([2, 0, 2, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        values = torch.tensor([1.0, 2.0, 3.0, 4.0])
        rows = torch.sparse_csr_tensor(start, index, values, (2, 3), check_invariants=False)
        columns = torch.sparse_csc_tensor(start, index, values, (3, 2), check_invariants=False)
    wanted = np.array([[2, 0, 4], [0, 4, 0]])
    np.testing.assert_array_equal(from_any(rows).check().to_dense(), wanted)
    np.testing.assert_array_equal(from_any(columns).check().to_dense(), wanted.T)
    twice = (np.array([100, 100], np.int8), (np.array([1, 1]), np.array([0, 0])))
    with pytest.raises(SparseError, match="more than i8 holds"):
        from_any(sparse.coo_array(twice, shape=(2, 2)))
    found = from_any(sparse.coo_array((twice[0].astype(np.float32), twice[1]), shape=(2, 2)))
    np.testing.assert_array_equal(found.to_dense(), [[0, 0], [200, 0]])


def test_torch_bf16_keeps_its_bits():
    torch = pytest.importorskip("torch")
    dense = torch.tensor([[1.5, 0.0], [0.0, -3.0]], dtype=torch.bfloat16)
    matrix = from_any(dense.to_sparse())
    assert matrix.element.name == "bf16"
    np.testing.assert_array_equal(to_scipy(matrix).toarray(), [[1.5, 0], [0, -3]])


def test_files(tmp_path):
    from scipy.io import mmwrite

    matrix = random((6, 9), 6)
    mmwrite(tmp_path / "a.mtx", matrix)
    sparse.save_npz(tmp_path / "a.npz", matrix)
    for name in ("a.mtx", "a.npz"):
        np.testing.assert_allclose(read(tmp_path / name).to_dense(), matrix.toarray())
    product = nybble.spgemm.matmul(str(tmp_path / "a.npz"), matrix.T, threads=1)
    assert abs(product - matrix @ matrix.T).max() < 1e-14
    (tmp_path / "b.mtx").write_text(
        "%%MatrixMarket matrix coordinate pattern general\n2 2 1\n2 1\n"
    )
    np.testing.assert_array_equal(read(tmp_path / "b.mtx").to_dense(), [[0, 0], [1, 0]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.mat", "", "accepted: .mtx"),
        ("none.mtx", None, "no file"),
        ("a.mtx", "nonsense", "cannot be read"),
        (
            "a.mtx",
            "%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1\n",
            "cannot be read",
        ),
        ("a.npz", "nonsense", "cannot be read"),
    ],
)
def test_bad_files_are_refused(name, text, message, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SparseError, match=message):
        read(tmp_path / name)


def test_what_is_no_matrix_is_refused():
    a = random((4, 4))
    bad = a.copy()
    bad.indices[0] = 9
    for call, message in (
        (lambda: nybble.spgemm.matmul(np.ones((2, 2)), a), "ndarray"),
        (lambda: nybble.spgemm.matmul(bad, a), "column 9"),
        (lambda: nybble.spgemm.matmul(a.astype(complex), a), "values of dtype complex128"),
        (lambda: nybble.spgemm.matmul(a, a, semiring="max"), "unknown semiring"),
        (lambda: nybble.spgemm.matmul(a, a, complement=True), "complement without a mask"),
        (lambda: nybble.spgemm.matmul(a, a, threads=0), "0 threads"),
        (lambda: nybble.spgemm.spmm(a, np.ones(4)), "1 dimensions"),
        (lambda: from_torch(a), "torch tensor"),
    ):
        with pytest.raises(SparseError, match=message):
            call()
