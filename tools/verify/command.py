"""`nybble verify` for the CPU: generated kernels against the numpy references."""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress as Bar

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.machine import cpu_flags
from nybble.backends.llvm.workers import close_idle
from nybble.dialects.lowbit import formats
from nybble.tools.diagnostics import UsageError
from nybble.tools.files import write_output
from nybble.tools.target import VerifyRequest
from nybble.tools.verbs.formats import EXAMPLES
from nybble.tools.verify import attention
from nybble.tools.verify.cases import Draw, all_specs
from nybble.tools.verify.run import Outcome, Progress, run

EXIT_FAILED = 1
ATTENTION = "sparse_attn.attention"
MATMUL = "mpgemm.matmul"
ALL = "all"
LARGE_GROUPS = ("w4g512", "w2g1024z", "w4g4096m", "w3g4096")
SHOWN = 20
"""Failures that a report lists."""


def verify_on_cpu(request: VerifyRequest) -> int:
    """Print or write the report; the exit code."""
    given, numbers, seed, json_file = (
        request.given, request.cases, request.seed, request.json_file
    )  # fmt: skip
    if given["op"] == ATTENTION:
        return verify_attention(str(request.target), numbers, seed, json_file)
    isa, asked = given["isa"], given["formats"] or ALL
    level = levels.get(isa) if isa else levels.detect(cpu_flags())
    draw = Draw(seed, chosen_specs(asked), level, given["dataflow"] or "")
    with shown_progress(len(numbers)) as progress:
        outcomes = run(draw, numbers, given["jobs"] or os.cpu_count() or 1, progress)
    found = report(draw, outcomes)
    found = {"target": str(request.target), "op": given["op"] or MATMUL, **found}
    if json_file is not None:
        write_output(json_file, (json.dumps(found) + "\n").encode())
    else:
        click.echo("\n".join(lines(found, asked)))
    return EXIT_FAILED if found["failed"] else 0


def verify_attention(target: str, numbers: range, seed: int, json_file: str | None) -> int:
    """Random attentions, in this process; the exit code."""
    with shown_progress(len(numbers)) as progress:
        outcomes = attention.run(seed, numbers, os.cpu_count() or 1, progress)
    close_idle()
    failures = [one.report() for one in outcomes if one.fault]
    worst = max(outcomes, key=lambda one: one.error)
    found = {
        "target": target, "op": ATTENTION, "seed": seed, "cases": len(outcomes),
        "failed": len(failures), "worst": worst.report(), "failures": failures[:SHOWN],
    }  # fmt: skip
    if json_file is not None:
        write_output(json_file, (json.dumps(found) + "\n").encode())
    else:
        click.echo(f"cases: {len(outcomes)}\nfailed: {len(failures)}")
        click.echo(f"worst: case {worst.number}, {worst.error:.2f} of what may be lost")
        for one in failures[:SHOWN]:
            click.echo(f"case {one['case']}: {one}")
    return EXIT_FAILED if failures else 0


def chosen_specs(asked: str) -> tuple[str, ...]:
    """The formats of a list of names, or all; UsageError for an unknown one."""
    if asked == ALL:
        return all_specs((*EXAMPLES, *LARGE_GROUPS))
    try:
        return tuple(dict.fromkeys(formats.get(name.strip()).spec for name in asked.split(",")))
    except formats.FormatError as error:
        raise UsageError(error.message, accepted=error.accepted) from None


def report(draw: Draw, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The keys of `--json`.

    refused: cases that must be an error and were. worst: the case with the largest error.
    """
    failures = [one.report() for one in outcomes if one.judgement.fault]
    ran = [one for one in outcomes if one.ran]
    worst = max(ran, key=lambda one: one.judgement.nmse, default=None)
    return {
        "isa": draw.isa.name,
        "seed": draw.seed,
        "formats": len({one.case.kernel.spec for one in outcomes}),
        "cases": len(outcomes),
        "refused": len(outcomes) - len(ran),
        "failed": len(failures),
        "worst": None if worst is None else worst.report(),
        "failures": failures[:SHOWN],
    }


def lines(found: dict[str, object], asked: str) -> list[str]:
    """The printed form of a report."""
    failures, worst = found["failures"], found["worst"]
    assert isinstance(failures, list)
    told = [f"{key}: {found[key]}" for key in ("isa", "formats", "cases", "refused", "failed")]
    if isinstance(worst, dict):
        told.append(f"worst: {worst['format']} {worst['shape']}, NMSE {worst['error']:.3g}")
    for one in failures:
        told.append(f"case {one['case']}: {one}")
        rerun = f"--formats {asked} --isa {found['isa']} --seed {found['seed']}"
        told.append(f"  again: nybble verify {rerun} --case {one['case']}")
    return told


@contextmanager
def shown_progress(total: int) -> Generator[Progress]:
    """A bar on the error stream; nothing where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done: None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("verifying", total=total)
        yield lambda done: bar.update(task, completed=done)
