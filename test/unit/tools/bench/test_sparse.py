"""`nybble bench spgemm`: the matrices that seeds make, and the rows that come of them."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from nybble.tools.bench.cli import bench
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.sparse import measure, peers
from nybble.tools.bench.sparse.workloads import Workload, workloads

pytest.importorskip("scipy")
SMALL = workloads("small")


@pytest.mark.parametrize("name", SMALL)
def test_workloads_are_in_order_and_follow_from_their_seed(name):
    first, again, other = (SMALL[name].make(seed) for seed in (1, 1, 2))
    for matrix, same in ((first.a, again.a), (first.b, again.b)):
        matrix.check()
        np.testing.assert_array_equal(matrix.values, same.values)
    assert first.products > 0
    places = (first.a, other.a)
    assert (
        name == "banded"
        or not np.array_equal(*(one.indices[:50] for one in places))
        or (not np.array_equal(*(one.values[:50] for one in places)))
    )


def test_shares_are_those_of_the_name():
    problem = SMALL["ffn-x20-w95"].make(1)
    assert problem.weight
    assert problem.b.nnz / np.prod(problem.b.shape) == pytest.approx(0.05, rel=0.1)
    assert problem.a.nnz / np.prod(problem.a.shape) == pytest.approx(0.2, rel=0.1)
    assert {f"ffn-x{x}-w{w}" for x in (1, 5, 20) for w in (50, 80, 90, 95)} <= set(SMALL)
    empty = SMALL["empty-rows"].make(1).a
    assert (np.diff(empty.indptr) == 0).mean() >= 0.9


def test_rows_of_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("NYBBLE_CACHE", str(tmp_path))

    def missing(a, b, threads):
        raise UnavailableError("MKL is not installed")

    monkeypatch.setattr(measure, "PEERS", {**peers.PEERS, "mkl": missing})
    file = tmp_path / "out.json"
    names = "hub,ffn-x5-w90"
    options = ["--workloads", names, "--size", "small", "--rounds", "1", "--threads", "1,2"]
    ran = CliRunner().invoke(
        bench, ["spgemm", *options, "--peers", "scipy,mkl", "--json", str(file)]
    )
    assert ran.exit_code == 0, ran.output
    report = json.loads(file.read_text())
    assert report["notes"] == ["mkl: MKL is not installed"]
    assert [(row["workload"], row["threads"]) for row in report["rows"]] == [
        ("hub", 1), ("hub", 2), ("ffn-x5-w90", 1), ("ffn-x5-w90", 2)
    ]  # fmt: skip
    for row in report["rows"]:
        assert row["error"] == 0
        assert row["speedup_vs_best"] == row["peers"]["scipy"] / row["ours_us"]
        assert row["memory"] > 0
        assert row["ours_us"] == row["routes"][row["route"]]
    assert set(report["rows"][2]["routes"]) == {"spgemm", "spmm", "dense"}


def test_rows_outlive_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setenv("NYBBLE_CACHE", str(tmp_path))
    file = tmp_path / "out.json"
    first = measure.workloads

    def interrupted(size):
        def stop(seed):
            raise KeyboardInterrupt

        return {**first(size), "banded": Workload("banded", stop)}

    monkeypatch.setattr(measure, "workloads", interrupted)
    options = ["--workloads", "hub,banded", "--size", "small", "--rounds", "1", "--peers", "none"]
    ran = CliRunner().invoke(bench, ["spgemm", *options, "--json", str(file)])
    assert ran.exit_code != 0
    assert [row["workload"] for row in json.loads(file.read_text())["rows"]] == ["hub"]


def test_an_unknown_workload_is_refused():
    ran = CliRunner().invoke(bench, ["spgemm", "--workloads", "nothing", "--size", "small"])
    assert "'nothing' is not one of the choices" in str(ran.exception)
    assert "rmat-graph500" in str(ran.exception)
