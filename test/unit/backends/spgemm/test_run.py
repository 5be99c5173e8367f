"""Programs of sparse products on simulators that others wrote, against numpy."""

import numpy as np
import pytest

from nybble.backends.llvm.toolchain import CodegenError
from nybble.backends.spgemm.choose import choose, sized
from nybble.backends.spgemm.engines.outcome import EngineError, read_report
from nybble.backends.spgemm.image import Setup
from nybble.backends.spgemm.machine import find_machine
from nybble.backends.spgemm.model.library import compiler
from nybble.backends.spgemm.model.timing import simulate
from nybble.backends.spgemm.model.trace import trace
from nybble.backends.spgemm.program import compiled
from nybble.backends.spgemm.run import ENGINES, PLAIN, Job, find_engine, image_of, run
from nybble.backends.spgemm.rv.assembly import tool
from nybble.backends.spgemm.windows import Filling, plan
from nybble.dialects.errors import UnknownNameError
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import PRESETS, Schedule
from nybble.tools.verify.sparse_cases import SCHEDULES
from nybble.tools.verify.spgemm import judge

RANDOM = np.random.default_rng(5)
FULL = Filling(32.0, 5)
MASKED = Schedule(accumulator="masked")


def _matrix(rows: int, cols: int, density: float = 0.3) -> SparseMatrix:
    dense = RANDOM.integers(1, 9, (rows, cols)) * (RANDOM.random((rows, cols)) < density)
    return SparseMatrix.from_dense(dense.astype(np.int64))


def _need(engine: str) -> None:
    try:
        for name in ("as", "ld"):
            tool(name)
        ENGINES[engine].check()
    except (EngineError, CodegenError) as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("how", SCHEDULES, ids=str)
@pytest.mark.parametrize("filling", [Filling(), FULL], ids=["roomy", "full"])
def test_exact_on_qemu(how: Schedule, filling: Filling) -> None:
    _need("qemu")
    lhs, rhs = _matrix(19, 14), _matrix(14, 23)
    mask = _matrix(19, 23) if how.accumulator == "masked" else None
    outcome = run(Job(lhs, rhs, how.with_bits(6), 4, filling, mask=mask), ENGINES["qemu"])
    assert judge(lhs, rhs, outcome.product, mask) == (0.0, "")
    may_spill = how.accumulator in ("table", "fragments")
    assert (outcome.spilled > 0) == (filling is FULL and may_spill)


@pytest.mark.parametrize("engine", ["spike", "rvsim"])
def test_the_same_code_is_exact_elsewhere(engine: str) -> None:
    _need(engine)
    lhs, rhs = _matrix(6, 5), _matrix(5, 7)
    outcome = run(Job(lhs, rhs, PRESETS["v2"].with_bits(5), 2), ENGINES[engine])
    assert judge(lhs, rhs, outcome.product) == (0.0, "")


def test_the_instructions_of_xspgemm_add_and_take_tokens() -> None:
    _need("spike+xspgemm")
    lhs, rhs = _matrix(6, 5), _matrix(5, 7)
    how = Schedule(transfer="dma", bits=5)
    outcome = run(Job(lhs, rhs, how, 4), ENGINES["spike+xspgemm"])
    assert judge(lhs, rhs, outcome.product) == (0.0, "")


def test_a_wrong_product_is_noticed() -> None:
    lhs = SparseMatrix.from_dense(np.eye(3))
    wrong = lhs.with_values(lhs.values * (1 + 1e-12))
    assert judge(lhs, lhs, lhs)[1] == ""
    assert "times what is allowed" in judge(lhs, lhs, wrong)[1]
    assert "other places" in judge(lhs, lhs, SparseMatrix.from_dense(np.ones((3, 3))))[1]


def test_the_model_conserves_what_was_traced_and_orders_versions() -> None:
    _need("qemu")
    try:
        compiler()
    except EngineError as error:
        pytest.skip(str(error))
    matrix = _matrix(64, 64, 0.15)
    machine = find_machine("piuma-like").having(threads=8)
    cycles: dict[str, float] = {}
    for name, preset in PRESETS.items():
        how = preset.with_bits(8)
        job = Job(matrix, matrix, how)
        image = image_of(job, ENGINES["qemu"])
        traced = trace(compiled(how, "i64", PLAIN), image)
        timing = simulate(traced, machine, how)  # it checks the sums and the bounds by itself
        lengths = np.diff(matrix.indptr)
        assert timing.products == int(lengths[matrix.indices].sum())
        assert judge(matrix, matrix, traced.outcome.product) == (0.0, "")
        cycles[name] = timing.cycles
    assert cycles["v1"] > cycles["v2"] > cycles["v3"]


@pytest.mark.parametrize("bits", [4, 6], ids=["columns in parts", "whole rows"])
def test_a_mask_prunes_what_a_program_does(bits: int) -> None:
    _need("qemu")
    try:
        compiler()
    except EngineError as error:
        pytest.skip(str(error))
    matrix = _matrix(64, 64, 0.4)
    how = Schedule(accumulator="masked", transfer="dma", bits=bits)
    program = compiled(how, "i64", PLAIN)
    places = (matrix.to_dense() != 0).astype(np.int64)
    found: list[float] = []
    for rows in (64, 16, 0):
        dense = np.zeros((64, 64), np.int64)
        dense[:rows, ::5] = 1
        mask = SparseMatrix.from_dense(dense)
        traced = trace(program, image_of(Job(matrix, matrix, how, mask=mask), ENGINES["qemu"]))
        assert judge(matrix, matrix, traced.outcome.product, mask) == (0.0, "")
        timing = simulate(traced, find_machine("piuma-like"), how)
        assert timing.products == int((places @ places * dense).sum())  # no other is multiplied
        found.append(timing.instructions)
    assert found[0] > 3 * found[1] > 9 * found[2]


def test_windows_cover_the_result_once() -> None:
    lhs, rhs = _matrix(30, 20), _matrix(20, 40)
    for how in SCHEDULES:
        covered = np.zeros((30, 40), np.int64)
        for first, last, left, right in plan(lhs, rhs, how.with_bits(5)).rows:
            covered[first:last, left:right] += 1
        assert np.all(covered == 1)


def test_auto_takes_the_cheapest() -> None:
    lhs = _matrix(30, 20)
    choice = choose(lhs, _matrix(20, 40), find_machine("piuma-like"), Setup(64))
    assert choice.cycles[choice.name] == min(choice.cycles.values())
    assert sized(PRESETS["v3"], (30, 40), 8, Setup(64)).bits == 6


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job(_matrix(2, 3), _matrix(2, 3), PRESETS["v2"]), "as many columns"),
        (Job(_matrix(2, 2), _matrix(2, 2), PRESETS["v2"], harts=65), "65 harts"),
        (Job(_matrix(2, 2), _matrix(2, 2), PRESETS["v2"].with_bits(24)), "fewer bits"),
        (Job(_matrix(2, 2), _matrix(2, 2), MASKED), "'masked' without a mask"),
        (Job(_matrix(2, 2), _matrix(2, 2), MASKED, mask=_matrix(2, 3)), "a mask of"),
        (Job(_matrix(2, 2), _matrix(2, 2), PRESETS["v2"], mask=_matrix(2, 2)), "'table' with a"),
    ],
)
def test_what_cannot_run_is_refused(job: Job, message: str) -> None:
    with pytest.raises(SparseError, match=message):
        image_of(job, ENGINES["qemu"])


def test_malformed_matrices_are_refused() -> None:
    good = _matrix(3, 3, 1.0)
    bad = SparseMatrix(good.shape, good.indptr, good.indices[::-1].copy(), good.values)
    with pytest.raises(SparseError, match="unsorted"):
        run(Job(bad, good, PRESETS["v2"]), ENGINES["qemu"])


def test_unknown_names_and_numbers_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown engine 'gem5'"):
        find_engine("gem5")
    with pytest.raises(UnknownNameError, match="unknown machine"):
        find_machine("vax")
    with pytest.raises(SparseError, match="filled to 0"):
        Filling(0.0)
    with pytest.raises(SparseError, match="fragments of 0"):
        Filling(0.5, 0)
    with pytest.raises(SparseError, match="unknown hash 'middle'"):
        Schedule(hash="middle")
    with pytest.raises(SparseError, match="3 bits"):
        Schedule(bits=3)
    job = Job(_matrix(2, 2), _matrix(2, 2), PRESETS["v2"])
    with pytest.raises(EngineError, match="reported 0 bytes"):
        read_report(image_of(job, ENGINES["qemu"]), b"", {})


def test_every_number_of_the_machine_says_where_it_is_from() -> None:
    for fact in find_machine("piuma-like").facts().values():
        assert fact.source.startswith(("published: ", "assumed: ", "ours: "))
