"""`nybble verify` for the CPU: generated kernels against the numpy references."""

import os
from collections.abc import Sequence

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.dataflows import DATAFLOWS
from nybble.backends.cpu.machine import cpu_flags
from nybble.dialects.lowbit import formats
from nybble.tools.diagnostics import UsageError
from nybble.tools.target import VerifyRequest
from nybble.tools.verbs.formats import EXAMPLES
from nybble.tools.verify import attention
from nybble.tools.verify.answer import SHOWN, check_dataflow, counts, failures, shown_progress, tell
from nybble.tools.verify.cases import Draw, all_specs
from nybble.tools.verify.run import Outcome, run

ATTENTION = "sparse_attn.attention"
MATMUL = "mpgemm.matmul"
ALL = "all"
LARGE_GROUPS = ("w4g512", "w2g1024z", "w4g4096m", "w3g4096")
FAMILIES = (
    *LARGE_GROUPS, "w2", "w4", "w5g32", "w6g64m", "w7g32", "w8z",
    "bip2:g=64:s=f16", "bip3:g=64:s=f16", "bip4:g=32:s=f16", "bip8:g=64:s=f16", "bitmod3g64",
    "u4:g=64:s=f16:z=scaled.f16", "i4:g=32.rows:s=f16", "i4:g=32:s=f16:sparse=2of4",
    "i8:g=32:s=f16:sparse=1of4", "u4:g=64:s=f16:z=int.u4:sparse=4of8",
    "i4:g=32:s=f16:sparse=2of4.block16", "i4:g=64:s=f16:sparse=csr.200",
    "i4:g=64:s=f16:sparse=bitmap.500", "i4:g=64:s=f16:sparse=bcsr4x4.300", "bf16:sparse=csr.100",
    "f16:sparse=2of4", "i4:g=32:s=f16:fix=outliers.csr.10.f16", "i4:g=32:s=f16:fix=lowrank.8.f16",
    "i4:g=32:s=f16:fix=hadamard.32", "i4:g=32:s=f16:fix=smooth",
)  # fmt: skip
"""Formats without a short name that `--formats all` has too: widths, patterns, corrections."""


def verify_on_cpu(request: VerifyRequest) -> int:
    """Print or write the report; the exit code."""
    given, numbers, seed, json_file = (
        request.given, request.cases, request.seed, request.json_file
    )  # fmt: skip
    if given["op"] == ATTENTION:
        return verify_attention(request)
    if given["op"] not in (None, MATMUL):
        raise UsageError(f"--op {given['op']} with target cpu", accepted=f"{MATMUL}, {ATTENTION}")
    check_dataflow(given["dataflow"], DATAFLOWS)
    isa, asked = given["isa"], given["formats"] or ALL
    level = levels.get(isa) if isa else levels.detect(cpu_flags())
    draw = Draw(seed, chosen_specs(asked), level, given["dataflow"] or "")
    with shown_progress(len(numbers)) as progress:
        outcomes = run(draw, numbers, jobs_of(request), progress)
    found = report(draw, outcomes)
    found = {"target": str(request.target), "op": given["op"] or MATMUL, **found}
    return tell(found, lines(found, asked), json_file)


def jobs_of(request: VerifyRequest) -> int:
    """How many processes: as many as there are processors where nothing was asked."""
    return request.given["jobs"] or os.cpu_count() or 1


def verify_attention(request: VerifyRequest) -> int:
    """Random attentions; the exit code."""
    with shown_progress(len(request.cases)) as progress:
        outcomes = attention.run(request.seed, request.cases, jobs_of(request), progress)
    faulty = [one.report() for one in outcomes if one.fault]
    worst = max(outcomes, key=lambda one: one.error)
    found = {
        "target": str(request.target), "op": ATTENTION, "seed": request.seed,
        "cases": len(outcomes), "failed": len(faulty), "worst": worst.report(),
        "drawn": attention.coverage(outcomes), "failures": faulty[:SHOWN],
    }  # fmt: skip
    said = f"worst: case {worst.number}, {worst.error:.2f} of what may be lost"
    told = [*counts(found, ("cases", "failed")), said, *failures(found)]
    return tell(found, told, request.json_file)


def chosen_specs(asked: str) -> tuple[str, ...]:
    """The formats of a list of names, or all; UsageError for an unknown one."""
    if asked == ALL:
        return all_specs((*EXAMPLES, *FAMILIES))
    try:
        return tuple(dict.fromkeys(formats.get(name.strip()).spec for name in asked.split(",")))
    except formats.FormatError as error:
        raise UsageError(error.message, accepted=error.accepted) from None


def report(draw: Draw, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The keys of `--json`.

    refused: cases that must be an error and were. worst: the case with the largest error.
    """
    faulty = [one.report() for one in outcomes if one.judgement.fault]
    ran = [one for one in outcomes if one.ran]
    worst = max(ran, key=lambda one: one.judgement.nmse, default=None)
    return {
        "isa": draw.isa.name,
        "seed": draw.seed,
        "formats": len({one.case.kernel.spec for one in outcomes}),
        "cases": len(outcomes),
        "refused": len(outcomes) - len(ran),
        "failed": len(faulty),
        "worst": None if worst is None else worst.report(),
        "failures": faulty[:SHOWN],
    }


def lines(found: dict[str, object], asked: str) -> list[str]:
    """The printed form of a report."""
    faulty, worst = found["failures"], found["worst"]
    assert isinstance(faulty, list)
    told = counts(found, ("isa", "formats", "cases", "refused", "failed"))
    if isinstance(worst, dict):
        told.append(f"worst: {worst['format']} {worst['shape']}, NMSE {worst['error']:.3g}")
    for one in faulty:
        told.append(f"case {one['case']}: {one}")
        rerun = f"--formats {asked} --isa {found['isa']} --seed {found['seed']}"
        told.append(f"  again: nybble verify {rerun} --case {one['case']}")
    return told
