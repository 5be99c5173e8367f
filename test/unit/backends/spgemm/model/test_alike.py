"""The cycle model against rvsim on a product of a few rows; test/bench/spgemm_model.py has many."""

import numpy as np
import pytest

from nybble.backends.llvm.toolchain import CodegenError
from nybble.backends.spgemm.engines import rvsim
from nybble.backends.spgemm.engines.outcome import EngineError
from nybble.backends.spgemm.model.alike import Run, flat_trace, gap_of, machine_alike
from nybble.backends.spgemm.model.library import compiler
from nybble.backends.spgemm.model.timing import simulate
from nybble.backends.spgemm.model.trace import trace
from nybble.backends.spgemm.program import compiled
from nybble.backends.spgemm.run import ENGINES, PLAIN, Job, image_of
from nybble.backends.spgemm.rv.assembly import tool
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import PRESETS

PEER = rvsim.Machine(cached=False)
HOW = PRESETS["v2"].with_bits(6)


def _matrix(seed: int) -> SparseMatrix:
    dense = np.random.default_rng(seed).random((12, 12)) < 0.25
    return SparseMatrix.from_dense(dense.astype(np.int64))


@pytest.fixture(autouse=True)
def _tools() -> None:
    try:
        compiler()
        for name in ("as", "ld"):
            tool(name)
        for name in ("qemu", "rvsim"):
            ENGINES[name].check()
    except (EngineError, CodegenError) as error:
        pytest.skip(str(error))


def _cycles(matrix: SparseMatrix, harts: int) -> float:
    image = image_of(Job(matrix, matrix, HOW, harts), ENGINES["rvsim"])
    outcome = rvsim.run(compiled(HOW, "i64", PLAIN), image, harts, PEER)
    return outcome.figures["cycles"]


def test_the_model_is_near_rvsim_without_what_rvsim_lacks() -> None:
    program = compiled(HOW, "i64", PLAIN)
    other, matrix = _matrix(1), _matrix(2)
    first, second = (
        flat_trace(program, image_of(Job(one, one, HOW), ENGINES["qemu"]))
        for one in (other, matrix)
    )
    gap = gap_of([Run(first, _cycles(other, 1))], PEER)
    assert 1 < gap < 5
    timing = simulate(second, machine_alike(PEER, 4, gap), HOW)
    assert timing.cycles == pytest.approx(_cycles(matrix, 4), rel=0.2)


def test_stores_that_are_buffered_give_loads_their_values() -> None:
    matrix = _matrix(3)
    how = PRESETS["v3"].with_bits(4)
    image = image_of(Job(matrix, matrix, how), ENGINES["qemu"])
    loads = [
        int((trace(compiled(how, "i64", PLAIN), image, 0, True, some).events["kind"] == 1).sum())
        for some in (0, 16, 63)
    ]
    assert loads == sorted(loads, reverse=True)
    assert loads[0] > loads[2]


def test_slots_are_shared_out_rather_than_entries() -> None:
    matrix = SparseMatrix.from_dense(np.eye(16, dtype=np.int64))
    how = PRESETS["v1"].with_bits(6)  # rows in order, each at the slots of its column
    image = image_of(Job(matrix, matrix, how), ENGINES["qemu"])
    events = trace(compiled(how, "i64", PLAIN), image).events
    assert int((events["kind"] == 6).sum()) == 2 * 64  # cleared once, written back once
