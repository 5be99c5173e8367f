"""nybble cost: measures schedules, learns from the measurements, and says what it learned."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.machine import Machine, cpu_flags, for_level
from nybble.backends.llvm.workers import close_idle
from nybble.costmodel.data.dataset import write_parquet
from nybble.costmodel.data.log import Log
from nybble.costmodel.learned.files import write_model
from nybble.frontend.compile_model import CompileOptions
from nybble.tools.cost.collect import Collection, Plan, Status
from nybble.tools.cost.devices import collect_on_devices
from nybble.tools.cost.explaining import explain
from nybble.tools.cost.kernel_workloads import kernels
from nybble.tools.cost.learning import (
    SPLITS,
    WORKLOAD,
    judge,
    judge_transfer,
    learn,
    measured,
    quiet,
)
from nybble.tools.cost.measuring import Measurer
from nybble.tools.cost.plots import draw
from nybble.tools.cost.workloads import Load, fused_loads, product_loads
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.files import write_output
from nybble.tools.mlir_file import FIRST, advance, read_module
from nybble.tools.model_options import isa_option, json_option
from nybble.tools.run_file import SCHEDULED
from nybble.tools.tuning import chooser, cost_model

STANDS_FOR = "Make code for a lower level, as another machine; default: this machine's."
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


FAMILIES: dict[str, Callable[[int, Isa, int], Iterator[Load]]] = {
    "products": product_loads,
    "kernels": kernels,
    "fused": fused_loads,
}
"""What is measured: matrix products, attention and kernels of rows, and fused products."""


@click.group(name="cost")
def command() -> None:
    """Measure schedules of kernels, learn from the measurements, and ask what was learned."""


def seconds_of(text: str) -> float:
    """Seconds of a budget such as 60s, 5m or 1h; UsageError for another text."""
    found = _BUDGET.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"no budget of time: '{text}'", accepted="such as 60s, 5m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def chosen(text: str) -> list[str]:
    """The families of a list of names; UsageError for an unknown one."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FAMILIES:
            raise UsageError(f"unknown family '{name}'", accepted=", ".join(FAMILIES))
    return names


def alternate(sources: Sequence[Iterator[Load]]) -> Iterator[Load]:
    """One of each in turn."""
    for several in zip(*sources, strict=False):
        yield from several


def sources(isa: Isa, families: str, seed: int, candidates: int) -> Iterator[Load]:
    """What to measure."""
    return alternate([FAMILIES[name](seed, isa, candidates) for name in chosen(families)])


def standing_for(isa: Isa) -> Machine:
    """A machine of a level, which this one can stand for; UsageError if it cannot run its code."""
    if not isa.needs <= cpu_flags():
        able = [one.name for one in levels.LEVELS.values() if one.needs <= cpu_flags()]
        raise UsageError(
            f"this machine cannot measure code of level '{isa.name}'", accepted=", ".join(able)
        )
    return for_level(isa)


@command.command(name="collect")
@click.option("--budget", default="60s", show_default=True, metavar="TIME", help="60s, 5m, 1h.")
@click.option("--out", "output", required=True, metavar="DB", help="The log to append to.")
@click.option("--families", default=",".join(FAMILIES), show_default=True, help="What to measure.")
@click.option("--candidates", type=click.IntRange(2), default=108, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--ray", "address", metavar="ADDRESS", help="Measure on a Ray cluster's devices.")
@click.option("--isa", "level", type=click.Choice([*levels.LEVELS]), help=STANDS_FOR)
def collect(budget: str, output: str, address: str | None, level: str | None, **drawn: Any) -> None:
    """Measure schedules of random workloads. It goes on where it was, whatever interrupted it."""
    isa = levels.get(level) if level else levels.detect(cpu_flags())
    machine = standing_for(isa) if level else None
    plan = Plan(seconds_of(budget), seed=drawn["seed"], machine=machine)

    def say(status: Status) -> None:
        click.echo(
            f"{status.seconds_left:.0f} s left, {status.measured} measured, {status.failed} "
            f"failed: {status.doing}",
            err=True,
        )

    with Log(Path(output)) as log, Measurer() as measurer:
        if address is not None:
            count = collect_on_devices(log, plan, address, sources(isa, **drawn))
            click.echo(f"{count} measurements")
            return
        collection = Collection(log, plan, say)
        try:
            collection.run(sources(isa, **drawn), measurer)
        finally:
            close_idle()
    click.echo(f"{collection.measured} measurements, {collection.failed} failures")


@command.command(name="export")
@click.argument("db")
@click.option("--out", "output", required=True, metavar="FILE", help="The Parquet file.")
@click.option(
    "--most-noise",
    type=click.FloatRange(0.0, 1.0),
    help="Leave out workloads whose two halves of rounds differ by more, such as 0.05.",
)
def export(db: str, output: str, most_noise: float | None) -> None:
    """Write the measurements of a log as Parquet."""
    data = measured(db)
    if most_noise is not None:
        data = quiet(data, most_noise)
    size = write_parquet(data.records, data.stand, Path(output))
    click.echo(f"wrote {output}: {len(data.records)} measurements, {size / 1e3:.0f} kB")


@command.command(name="train")
@click.argument("db", required=False)
@click.option("--out", "output", required=True, metavar="MODEL", help="The file to write.")
def train(db: str | None, output: str) -> None:
    """Learn a cost model from a log or a Parquet file; from nybble's measurements without one."""
    model = learn(measured(db))
    size = write_model(model, Path(output))
    click.echo(f"wrote {output}: {size / 1024:.0f} KiB, from {model.card['measurements']}")


@command.command(name="eval")
@click.argument("db", required=False)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default=WORKLOAD,
    show_default=True,
    help="What is held out together.",
)
@click.option("--other", metavar="FILE", help="Measurements of another machine.")
@click.option("--tokens/--no-tokens", "texts", default=True, help="The baseline on token n-grams.")
@click.option("--plots", metavar="DIR", help="Draw what was found, as PNG.")
@json_option
def evaluate(
    db: str | None,
    split: str,
    other: str | None,
    texts: bool,
    plots: str | None,
    json_file: str | None,
) -> None:
    """Judge cost models on what they have not seen, beside baselines."""
    data = measured(db)
    if split != WORKLOAD:
        found = judge_transfer(
            data,
            split,
            measured(other) if other is not None else None,
            lambda said: click.echo(said, err=True),
        )
        write_output(json_file or "-", (json.dumps(found) + "\n").encode())
        return
    rows, verdict, report = judge(data, texts=texts, say=lambda said: click.echo(said, err=True))
    if plots is not None:
        for path in draw(rows, verdict, Path(plots)):
            click.echo(f"wrote {path}", err=True)
    if json_file is not None:
        write_output(json_file, (json.dumps(report) + "\n").encode())
    else:
        click.echo("\n".join(table(report)))


FIGURES = (
    *("mape", "tau", "top1_regret_mean", "top1_regret_p95", "top5_regret_mean"),
    "trials_to_2pct",
)


def table(report: Mapping[str, object]) -> Iterator[str]:
    """The printed form of a report."""
    baselines = report["baselines"]
    assert isinstance(baselines, dict)
    yield f"{'':12}" + "".join(f"{name:>18}" for name in FIGURES)
    for name, found in {"model": report, **baselines}.items():
        cells = ("-" if found.get(key) is None else f"{found[key]:.2f}" for key in FIGURES)
        yield f"{name:12}" + "".join(f"{cell:>18}" for cell in cells)
    yield f"coverage of 90% intervals: {report['coverage']}"
    yield f"out of distribution, AUROC: {report['ood_auroc']}"
    yield (
        f"{report['measurements']} measurements of {report['workloads']} workloads, "
        f"{report['problems']} problems; {report['judged_workloads']} have 100 candidates"
    )


@command.command(name="explain")
@click.argument("file")
@click.option("--cost-model", "trained", metavar="FILE", help="Default: the one of nybble.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option("--compiled", is_flag=True, help="Compile, and count what is in the machine code.")
@isa_option
@json_option
@click.pass_obj
def explain_file(
    session: Session,
    file: str,
    trained: str | None,
    threads: int,
    compiled: bool,
    isa: str | None,
    json_file: str | None,
) -> None:
    """Say what the kernels of an MLIR file cost, why, and what would be the next best schedule."""
    options = CompileOptions(threads=threads, isa=isa)
    module = read_module(file, FIRST, session)
    advance(module, FIRST, SCHEDULED, options)
    found = explain(module, chooser(cost_model(trained), options), compiled=compiled)
    if json_file is not None:
        rows = [asdict(one) for one in found]
        write_output(json_file, (json.dumps({"kernels": rows}) + "\n").encode())
    else:
        click.echo("\n".join(line for one in found for line in one.lines()))
