"""`nybble verify --target spgemm`: programs on simulators against the reference.

Each case runs on each engine with each of its numbers of harts. Sums of i64 must be exact; those of
floats may be in any order, so that an entry that takes k products is allowed gamma_k = k u / (1 -
k u) of the sum of their sizes (Higham, Accuracy and Stability, 4.2).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nybble.backends.llvm.workers import close_idle
from nybble.backends.spgemm.image import HARTS
from nybble.backends.spgemm.run import ENGINES, Engine, Job, find_engine, run
from nybble.dialects.errors import NybbleError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.tools.diagnostics import UsageError
from nybble.tools.target import VerifyRequest
from nybble.tools.verify.answer import SHOWN, counts, failures, shown_progress, tell
from nybble.tools.verify.sparse_cases import SparseCase, draw

USUAL = "qemu,spike,rvsim"
COUNTS = (1, 4, 16, 64)
"""Of harts, unless others are asked for."""


@dataclass(frozen=True)
class Run:
    """A case on an engine. error: the largest, over what is allowed. fault: empty if it is right.

    spilled: products that found no room in an accumulator.
    """

    case: SparseCase
    engine: str
    harts: int
    error: float = 0.0
    spilled: int = 0
    fault: str = ""

    def report(self) -> dict[str, object]:
        """The run in the words of the command's report."""
        return {
            **self.case.report(), "engine": self.engine, "harts": self.harts,
            "spilled": self.spilled, "error": self.error, "fault": self.fault,
        }  # fmt: skip


def verify_spgemm(request: VerifyRequest) -> int:
    """Print or write the report; the exit code."""
    request.refuse("engines", "harts")
    names = (request.given["engines"] or USUAL).split(",")
    engines = {name.strip(): find_engine(name.strip()) for name in names}
    for engine in engines.values():
        engine.check()
    asked = numbers_of(request.given["harts"]) or COUNTS
    runs: list[Run] = []
    with shown_progress(len(request.cases)) as progress:
        for done, number in enumerate(request.cases, 1):
            runs += runs_of(request.seed, number, engines, asked)
            progress(done)
    close_idle()
    found = {"target": str(request.target), "seed": request.seed, **report(runs)}
    return tell(found, lines(found), request.json_file)


def numbers_of(text: str | None) -> tuple[int, ...]:
    """The numbers of harts that were asked for, none if the engines' own; raises UsageError."""
    words = text.split(",") if text else []
    least, most = HARTS
    wrong = [one for one in words if not (one.isdecimal() and least <= int(one) <= most)]
    if wrong:
        raise UsageError(f"--harts {wrong[0][:20]!r}", accepted=f"{least} to {most}, with commas")
    return tuple(int(one) for one in words)


def runs_of(
    seed: int, number: int, engines: dict[str, Engine], asked: tuple[int, ...]
) -> Iterator[Run]:
    """A case on every engine with every number of harts."""
    for name, engine in engines.items():
        case = draw(seed, number, engine.large)
        for harts in asked:
            yield run_case(case, name, harts)


def run_case(case: SparseCase, name: str, harts: int) -> Run:
    """A case on one engine, judged."""
    try:
        job = Job(case.lhs, case.rhs, case.how, harts, case.filling, mask=case.mask)
        outcome = run(job, ENGINES[name])
    except NybbleError as error:
        return Run(case, name, harts, fault=str(error))
    error, fault = judge(case.lhs, case.rhs, outcome.product, case.mask)
    return Run(case, name, harts, error, outcome.spilled, fault)


def judge(
    lhs: SparseMatrix, rhs: SparseMatrix, found: SparseMatrix, mask: SparseMatrix | None = None
) -> tuple[float, str]:
    """The largest error over what is allowed, and what is wrong with a product, if anything.

    mask: its places are those that were asked for.
    """
    asked = np.ones(found.shape, np.bool_) if mask is None else _pattern(mask)
    places = _pattern(lhs).astype(np.int64) @ _pattern(rhs).astype(np.int64) * asked
    if not np.array_equal(_pattern(found), places > 0):
        return np.inf, "entries at other places than the products"
    got = found.to_dense()
    if lhs.values.dtype == np.int64:
        with np.errstate(over="ignore"):
            wrong = int((got != lhs.to_dense() @ rhs.to_dense() * asked).sum())
        return float(wrong), f"{wrong} entries differ" if wrong else ""
    left, right = (one.to_dense().astype(np.longdouble) for one in (lhs, rhs))
    unit = float(np.finfo(lhs.values.dtype).eps) / 2
    steps = places * unit  # one rounding of each product, and one of each sum
    allowed = steps / (1 - steps) * (np.abs(left) @ np.abs(right))
    tiny = float(np.finfo(lhs.values.dtype).smallest_subnormal) * places
    error = float(
        np.max(np.abs(got - left @ right * asked) / (allowed + tiny + 1e-300), initial=0.0)
    )
    return error, f"an error {error:.3g} times what is allowed" if not error <= 1 else ""


def _pattern(matrix: SparseMatrix) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    made = np.zeros(matrix.shape, np.bool_)
    made[matrix.row_ids, matrix.indices] = True
    return made


def report(runs: Sequence[Run]) -> dict[str, object]:
    """The keys of `--json`.

    spilled: runs in which products found no room in a table.
    """
    faulty = [one.report() for one in runs if one.fault]
    worst = max(runs, key=lambda one: one.error)
    by_engine: dict[str, dict[str, int]] = {}
    for one in runs:
        counts = by_engine.setdefault(one.engine, {})
        counts[str(one.harts)] = counts.get(str(one.harts), 0) + 1
    return {
        "cases": len({one.case.number for one in runs}), "runs": len(runs), "engines": by_engine,
        "spilled": sum(one.spilled > 0 for one in runs), "failed": len(faulty),
        "worst": worst.report(), "failures": faulty[:SHOWN],
    }  # fmt: skip


def lines(found: dict[str, object]) -> list[str]:
    """The printed form of a report."""
    names = ("cases", "runs", "engines", "spilled", "failed")
    return [*counts(found, names), *failures(found)]
