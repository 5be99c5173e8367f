"""`nybble verify` for GPUs: the PTX of random products, executed in the simulator.

Everything follows from the seed and the number of the case. Cases take the formats in turn, and
architectures at random. A case that has no kernel must be refused before code is generated, and is
counted by its reason; a shape that a format cannot have must be refused too.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.arch import IMAGINED, find_arch
from nybble.backends.gpu.dataflows import MODES, ProductSpec
from nybble.backends.gpu.kernels.matmul.lookup import LookupSpec, amplitudes, lookup_spec
from nybble.backends.gpu.products import Activations, ProductError, compile_spec, product_spec
from nybble.backends.gpu.simulated import run_lookup, run_product
from nybble.backends.llvm.workers import close_idle
from nybble.dialects.errors import InternalError, NybbleError
from nybble.dialects.lowbit import formats
from nybble.tools.diagnostics import UsageError
from nybble.tools.target import VerifyRequest
from nybble.tools.verify.answer import SHOWN, counts, failures, shown_progress, tell
from nybble.tools.verify.cases import MISFIT_EVERY, Case, Kernel, all_specs, misfit
from nybble.tools.verify.command import ALL, ATTENTION, LARGE_GROUPS, MATMUL, chosen_specs
from nybble.tools.verify.data import Data, make
from nybble.tools.verify.gpu_attention import AttentionOutcome, drawn
from nybble.tools.verify.gpu_attention import run_case as run_attention
from nybble.tools.verify.pool import runner

DATA = ("normal", "exact", "extreme", "zero_groups", "denormal")
"""Not "infinite": f16 and bf16 activations times an infinite scale are NaN on both sides."""
TYPES = (
    ("f16", "f16"), ("f16", "f32"), ("bf16", "bf16"), ("bf16", "f32"), ("i8", "f32"), ("i8", "f16"),
    ("b1", "f32"), ("b2", "f32"), ("b4", "f32"),
)  # fmt: skip
"""Of activations, and of results."""
LOOKED_UP = ("f16", "f32")
ROUNDING = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}
SMALLEST = {"f16": 2.0**-25, "bf16": 2.0**-133, "f32": 2.0**-150}
"""Half of the smallest number of a type."""
LARGEST = {"f16": 65504.0, "bf16": 3.38e38, "f32": 3.4e38}
"""Results of this size may be infinite."""
SUMMED = 2.0**-18
"""Relative error of sums of hundreds of products in f32."""
TOKENS = (1, 2, 5, 8, 9, 16, 17, 33)
LARGEST_ROWS, UNIT_COLS, UNITS = 80, 64, 6
STREAM = "stream"
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GpuCase:
    """A case, and what it is compiled for. output: the type of the results. warpgroups: whether
    four warps multiply at once; lookups: whether it is by `lmma`.
    """

    case: Case
    arch: str
    output: str
    warpgroups: bool = False
    lookups: bool = False


@dataclass(frozen=True)
class GpuOutcome:
    """error: the largest, over what is allowed. refusal, fault: empty where there is none."""

    drawn: GpuCase
    error: float = 0.0
    refusal: str = ""
    fault: str = ""

    def report(self) -> dict[str, object]:
        """The case in the words of the command's report."""
        case = self.drawn.case
        return {
            "case": case.number, "arch": self.drawn.arch, "format": case.kernel.spec,
            "shape": [case.kernel.rows, case.kernel.cols], "tokens": case.tokens,
            "activations": case.kernel.activations, "output": self.drawn.output,
            "warpgroups": self.drawn.warpgroups, "lookups": self.drawn.lookups,
            "data": case.data, "error": self.error, "fault": self.fault,
        }  # fmt: skip


@dataclass(frozen=True)
class GpuDraw:
    """A family of cases: the seed, the formats and the architectures."""

    seed: int
    specs: tuple[str, ...]
    archs: tuple[str, ...]

    def case(self, number: int) -> GpuCase:
        """The case of a number >= 0."""
        random = np.random.default_rng([self.seed, number, 2])
        spec = self.specs[number % len(self.specs)]
        description = formats.get(spec)
        tokens, data = int(random.choice(TOKENS)), str(random.choice(DATA))
        arch = str(random.choice(self.archs))
        draw = number // len(self.specs)
        if draw % MISFIT_EVERY == MISFIT_EVERY - 1 and description.block > 1:
            kernel = misfit(spec, random)
        else:
            step = int(np.lcm(UNIT_COLS, description.block))
            cols = step * int(random.integers(1, max(2, UNITS * UNIT_COLS // step + 1)))
            rows = int(random.choice([1, 3, 16, int(random.integers(1, LARGEST_ROWS))]))
            kernel = Kernel(spec, rows, cols, tokens > 1, STREAM, TYPES[0][0], "")
        drawn = GpuCase(Case(number, kernel, tokens, data), arch, TYPES[0][1])
        able = [one for one in TYPES if has_kernel(with_types(drawn, one))] or [TYPES[0]]
        chosen = with_types(drawn, able[int(random.integers(len(able)))])
        looked_up = replace(with_types(chosen, LOOKED_UP), lookups=True)
        if arch in IMAGINED and random.integers(2) and has_kernel(looked_up):
            return looked_up
        grouped = replace(chosen, warpgroups=True)
        return grouped if random.integers(2) and has_kernel(grouped) else chosen


def with_types(drawn: GpuCase, types: tuple[str, str]) -> GpuCase:
    """The case with other types of activations and of results."""
    kernel = replace(drawn.case.kernel, activations=types[0])
    return replace(drawn, case=replace(drawn.case, kernel=kernel), output=types[1])


def has_kernel(drawn: GpuCase) -> bool:
    """Whether a case is not refused."""
    try:
        spec_of(drawn)
    except NybbleError:
        return False
    return True


def verify_on_gpu(request: VerifyRequest) -> int:
    """Print or write the report; the exit code."""
    op, jobs = request.given["op"], request.given["jobs"] or os.cpu_count() or 1
    if op == ATTENTION:
        request.refuse("op")
        return verify_attention(request)
    if op not in (None, MATMUL):
        raise UsageError(f"--op {op} with target cuda", accepted=f"{MATMUL}, {ATTENTION}")
    request.refuse("op", "formats", "jobs")
    asked = request.given["formats"] or ALL
    specs = all_specs(LARGE_GROUPS[:1]) if asked == ALL else chosen_specs(asked)
    draw = GpuDraw(request.seed, specs, tuple(one.level for one in request.targets))
    outcomes = run(draw, request.cases, jobs)
    found = {"target": ",".join(str(one) for one in request.targets), **report(draw, outcomes)}
    return tell(found, lines(found), request.json_file)


def verify_attention(request: VerifyRequest) -> int:
    """Random attentions, in this process; the exit code."""
    archs = tuple(one.level for one in request.targets)
    outcomes: list[AttentionOutcome] = []
    with shown_progress(len(request.cases)) as progress:
        for number in request.cases:
            outcomes.append(run_attention(request.seed, drawn(request.seed, number, archs)))
            progress(len(outcomes))
    close_idle()
    faulty = [one.report() for one in outcomes if one.fault]
    worst = max(outcomes, key=lambda one: one.error)
    found = {
        "target": ",".join(str(one) for one in request.targets), "op": ATTENTION,
        "seed": request.seed, "cases": len(outcomes), "failed": len(faulty),
        "worst": worst.report(), "failures": faulty[:SHOWN],
    }  # fmt: skip
    said = f"worst: case {worst.case.number}, {worst.error:.2f} of what may be lost"
    return tell(
        found, [*counts(found, ("cases", "failed")), said, *failures(found)], request.json_file
    )


def run(draw: GpuDraw, numbers: range, jobs: int) -> list[GpuOutcome]:
    """The outcome of each case, in order."""
    found: list[GpuOutcome] = []
    work = [(draw, number) for number in numbers]
    with runner(min(jobs, len(work)), run_case) as execute, shown_progress(len(work)) as progress:
        for outcome in execute(work):
            found.append(outcome)
            progress(len(found))
    return sorted(found, key=lambda one: one.drawn.case.number)


def run_case(given: tuple[GpuDraw, int]) -> GpuOutcome:
    """Compile, execute and judge one case in this process."""
    draw, number = given
    drawn = draw.case(number)
    try:
        spec = spec_of(drawn)
    except NybbleError as error:
        return GpuOutcome(drawn, refusal=error.message)
    if drawn.case.kernel.dataflow != STREAM:
        return GpuOutcome(drawn, np.inf, fault="it was not refused")
    try:
        return executed(drawn, spec, draw.seed)
    except (NybbleError, InternalError) as error:
        return GpuOutcome(drawn, np.inf, fault=f"{type(error).__name__}: {error}")


def spec_of(drawn: GpuCase) -> ProductSpec:
    """The kernel of a case; NybbleError if there is none."""
    kernel, case = drawn.case.kernel, drawn.case
    if drawn.lookups:
        return lookup_spec(kernel.spec, kernel.rows, kernel.cols, case.tokens, drawn.output)
    modes: dict[str, Activations] = {one: one for one in MODES}
    mode = modes[kernel.activations]
    return product_spec(
        kernel.spec, kernel.rows, kernel.cols, case.tokens, drawn.arch, mode, drawn.output,
        warpgroups=drawn.warpgroups,
    )  # fmt: skip


def executed(drawn: GpuCase, spec: ProductSpec, seed: int) -> GpuOutcome:
    """The outcome of a case that has a kernel."""
    kernel = drawn.case.kernel
    data = make(drawn.case, seed)
    if isinstance(spec, LookupSpec):
        y = run_lookup(spec, data.x, spec.pack(data.weights[0]), find_arch(drawn.arch))
        return judged(drawn, data, data.x, y.astype(np.float64))
    product = compile_spec(formats.get(kernel.spec).spec, spec, f"case_{drawn.case.number}")
    try:
        packed = product.pack(data.weights[0])
    except ProductError as error:
        return GpuOutcome(drawn, refusal=error.message)
    ran = run_product(product, data.x, packed)
    return judged(drawn, data, ran.x, ran.y.astype(np.float64))


def judged(drawn: GpuCase, data: Data, x: npt.NDArray[np.float32], y: F64) -> GpuOutcome:
    """Hold a result, f64 [tokens, rows], against the product of x [tokens, cols] in f64."""
    exact = x.astype(np.float64) @ data.weights[0].dequantize().astype(np.float64).T
    allowed = bound(drawn, data, x, exact)
    large = np.abs(exact) + allowed >= LARGEST[drawn.output]
    errors = np.abs(y - exact, where=~large, out=np.zeros_like(exact)) / allowed
    if not np.isfinite(errors).all():
        return GpuOutcome(drawn, np.inf, fault="a result is not finite")
    token, row = (int(place) for place in np.unravel_index(np.argmax(errors), errors.shape))
    worst = float(errors[token, row])
    said = f"result[{token}, {row}] is {y[token, row]:.9g}, {exact[token, row]:.9g} is right"
    return GpuOutcome(drawn, worst, fault=said if worst > 1 else "")


def bound(drawn: GpuCase, data: Data, x: npt.NDArray[np.float32], exact: F64) -> F64:
    """The error that is allowed of each element, f64 [tokens, rows]: the rounding of the result,
    that of weights (some in units of two) to the activations' type if those are floats, and sums in
    f32. Integers are exact but for the first.
    """
    mode, output = drawn.case.kernel.activations, drawn.output
    allowed = ROUNDING[output] * np.abs(exact) + SMALLEST[output]
    if drawn.lookups:
        # entries of tables are rounded, each of which counts as much as the largest code
        weights = amplitudes(drawn.case.kernel.spec, data.weights[0])
        lost = (ROUNDING[mode] + SUMMED) * np.abs(x).astype(np.float64) + SMALLEST[mode]
        return allowed + lost @ weights.T
    if data.exact and mode in ROUNDING:
        return allowed
    dense = np.abs(data.weights[0].dequantize().astype(np.float64))
    lost = (ROUNDING.get(mode, 0.0) + SUMMED) * dense + 2 * SMALLEST.get(mode, 0.0)
    return allowed + np.abs(x).astype(np.float64) @ lost.T


def report(draw: GpuDraw, outcomes: Iterable[GpuOutcome]) -> dict[str, object]:
    """The keys of `--json`. refused: how many cases, by reason; worst: the largest error."""
    found = list(outcomes)
    faulty = [one.report() for one in found if one.fault]
    ran = [one for one in found if not one.refusal]
    worst = max(ran, key=lambda one: one.error, default=None)
    reasons = Counter(one.refusal for one in found if one.refusal)
    return {
        "seed": draw.seed, "formats": len({one.drawn.case.kernel.spec for one in found}),
        "cases": len(found), "refused": sum(reasons.values()), "failed": len(faulty),
        "worst": None if worst is None else worst.report(), "failures": faulty[:SHOWN],
        "reasons": dict(reasons.most_common()),
    }  # fmt: skip


def lines(found: dict[str, object]) -> list[str]:
    """The printed form of a report."""
    worst, reasons = found["worst"], found["reasons"]
    assert isinstance(reasons, dict)
    told = counts(found, ("target", "formats", "cases", "refused", "failed"))
    told += [f"  {count} times: {reason}" for reason, count in reasons.items()]
    if isinstance(worst, dict):
        told.append(f"worst: case {worst['case']}, {worst['error']:.2f} of what may be lost")
    return told + failures(found)
