"""Measures what the project promises of SmolLM2 against llama.cpp; minutes, on a quiet machine.

Not part of the tests that CI runs: `pytest test/bench`. Needs the bench extra.
"""

import pytest

from nybble.tools.bench.model import bench_model
from nybble.tools.bench.options import ModelOptions
from nybble.tools.models import cache_root

LEAST_SPEEDUP = 1.2
PERPLEXITY_TOLERANCE = 0.01


@pytest.fixture(scope="module")
def report():
    pytest.importorskip("llama_cpp")
    types = ("same", "q4_0")
    folder = cache_root() / "bench"
    return bench_model(ModelOptions("smollm2", folder, ("llama.cpp",), types), print)


@pytest.mark.parametrize(("phase", "depth"), [("prefill", 0), ("decode", 0), ("decode", 512)])
def test_faster_than_the_best_of_llama_cpp(report, phase, depth):
    (row,) = [one for one in report.facts["best"] if (one["phase"], one["depth"]) == (phase, depth)]
    assert row["speedup"] >= LEAST_SPEEDUP


def test_as_right_as_llama_cpp_on_the_same_file(report):
    perplexity = report.facts["perplexity"]
    peer = perplexity["llama.cpp"]["same"]
    assert abs(perplexity["ours"] - peer) <= PERPLEXITY_TOLERANCE * peer
