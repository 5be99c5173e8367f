"""A whole kernel measurement, small, with made-up peers."""

import json

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.tools.bench.data import make_sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.kernels import Case, bench_kernels, cases, qualified, rotation_of
from nybble.tools.bench.options import KernelOptions, Shape
from nybble.tools.bench.ours_kernel import OurKernel
from nybble.tools.bench.peers import api
from nybble.tools.bench.rounds import Rotation, Schedule

SHAPE = Shape(96, 128)
QUICK = Schedule(rounds=2, warmups=0, settle=0)
KEYS = {
    "format", "rows", "cols", "n", "cache", "threads", "dataflow", "ours_us", "peers", "roof",
    "roof_fraction", "nmse", "peer_us", "speedup",
}  # fmt: skip


class Scripted:
    """A product that takes the time it is told to."""

    def __init__(self, sample, seconds):
        self.taken, self.sample, self.closed = seconds, sample, False

    def seconds(self):
        return self.taken

    def result(self):
        return self.sample.product.astype(np.float32) * np.float32(2)

    def close(self):
        self.closed = True


class FakePeer:
    """Two variants, one a little slower, and one that is hopeless."""

    made: list[Scripted] = []  # noqa: RUF012

    def kernels(self, sample, threads, rotation, note):
        note("a variant is missing")
        found = {"plain": 3.0, "packed": 2.5, "slow": 90.0}
        runners = {name: Scripted(sample, seconds) for name, seconds in found.items()}
        self.made.extend(runners.values())
        return runners

    def model(self, path, note):
        raise NotImplementedError


class MissingPeer(FakePeer):
    """Not installed."""

    def kernels(self, sample, threads, rotation, note):
        raise UnavailableError("it is not there", accepted="pip install it")


@pytest.fixture
def peers(monkeypatch):
    rows = {"fake": f"{__name__}:FakePeer", "gone": f"{__name__}:MissingPeer"}
    found = {"fake": FakePeer, "gone": MissingPeer}
    registry = type("Rows", (), {"load": staticmethod(found.__getitem__)})
    monkeypatch.setattr("nybble.tools.bench.kernels.REGISTRY", registry)
    FakePeer.made.clear()
    return rows


def test_registered_peers_load():
    for name in api.PEERS:
        assert api.REGISTRY.load(name)


def test_rows_have_the_keys_that_people_rely_on(peers):
    options = KernelOptions(("q4_0",), (SHAPE,), (1,), peers=("fake", "gone"), schedule=QUICK)
    report = json.loads(bench_kernels(options).as_json())
    (row,) = report["rows"]
    assert row.keys() >= KEYS
    assert row["peers"] == {"fake": 2.5e6}
    assert (row["best_peer"], row["peer_us"]) == ("fake/packed", 2.5e6)
    assert row["speedup"] == pytest.approx(2.5e6 / row["ours_us"])
    assert row["peers_nmse"]["fake"] == pytest.approx(1.0)
    assert row["nmse"] < 1e-3
    assert row["roof_fraction"] > 0
    assert "fake/slow" not in row["variants"]
    assert "a variant is missing" in report["notes"]
    assert any("gone: it is not there" in note for note in report["notes"])
    assert all(one.closed for one in FakePeer.made)


def test_formats_without_a_kernel_of_ours_are_noted(monkeypatch):
    def refuse(*_):
        raise NybbleError("no product of ours takes it")

    monkeypatch.setattr("nybble.tools.bench.kernels.OurKernel", refuse)
    report = bench_kernels(KernelOptions(("f16",), (SHAPE,), schedule=QUICK))
    assert report.rows[0]["ours_us"] is None
    assert report.rows[0]["roof_fraction"] is None
    assert any("ours: no product" in note for note in report.notes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (KernelOptions(("q4_9",), (SHAPE,)), NybbleError, "unknown format 'q4_9'"),
        (KernelOptions(("q4_0",), (SHAPE,), peers=("x",)), UnknownNameError, "unknown peer 'x'"),
        (KernelOptions(("q4_0",), (Shape(8, 33),)), NybbleError, "33"),
    ],
)
def test_what_does_not_exist_is_told(options, error, message):
    with pytest.raises(error, match=message):
        bench_kernels(options)


def test_all_combinations_in_order():
    options = KernelOptions(("a", "b"), (SHAPE,), (1, 2), ("hot",), (1,))
    assert [(case.format, case.n) for case in cases(options)] == [
        ("a", 1), ("a", 2), ("b", 1), ("b", 2),
    ]  # fmt: skip
    assert str(Case("a", SHAPE, 1, "hot", 2)) == "a 96x128 n=1 hot, 2 threads, i8"


def test_cold_products_go_through_enough_memory():
    sample = make_sample("q4_0", SHAPE, 1)
    cold = rotation_of(Case("q4_0", SHAPE, 1, "cold", 1), sample, 10**6)
    assert cold.copies * sample.weight_bytes >= 10**6
    hot = rotation_of(Case("q4_0", SHAPE, 1, "hot", 1), sample, 10**6)
    assert (hot.copies, hot.repeats) == (1, 64)


def test_hopeless_variants_do_not_run_again():
    class Runner:
        def __init__(self, seconds):
            self.seconds = lambda: seconds

    runners = {"ours": Runner(9.0), "p/a": Runner(1.0), "p/b": Runner(1.9), "p/c": Runner(2.1)}
    assert set(qualified(runners)) == {"ours", "p/a", "p/b"}


@pytest.mark.parametrize("rotation", [Rotation(), Rotation(copies=2, repeats=2)])
@pytest.mark.parametrize("n", [1, 20])
@pytest.mark.parametrize(
    ("activations", "operands", "bound"),
    [
        ("i8-only", ("a8g32", "f32"), 1e-3),
        ("i16", ("a16g32", "f32"), 1e-8),
        ("f32", ("f32",), 1e-11),
    ],
)
def test_our_kernel_computes_the_sample(rotation, n, activations, operands, bound):
    sample = make_sample("q4_1", SHAPE, n)
    kernel = OurKernel(sample, 2, rotation, activations)
    assert kernel.seconds() > 0
    assert kernel.dataflow.split()[1] in operands
    assert sample.nmse(kernel.result()) < bound
    kernel.close()


def test_nmse_of_the_truth_is_zero():
    sample = make_sample("q8_0", SHAPE, 3)
    weight = sample.format.unpack(sample.raw, SHAPE.cols).dequantize().astype(np.float64)
    assert np.allclose(sample.x.astype(np.float64) @ weight.T, sample.product, rtol=1e-12)
    assert sample.nmse(sample.product.astype(np.float32)) < 1e-14
