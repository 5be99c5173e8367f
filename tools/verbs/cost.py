"""nybble cost: measures schedules, learns from the measurements, and says what it learned."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.machine import cpu_flags
from nybble.backends.llvm.workers import close_idle
from nybble.costmodel.data.log import Log
from nybble.tools.cost.collect import Collection, Plan, Status
from nybble.tools.cost.kernel_workloads import kernels
from nybble.tools.cost.measuring import Measurer
from nybble.tools.cost.workloads import Load, product_loads
from nybble.tools.diagnostics import UsageError

_BUDGET = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_UNITS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


FAMILIES: dict[str, Callable[[int, Isa, int], Iterator[Load]]] = {
    "products": product_loads,
    "kernels": kernels,
}
"""What is measured: matrix products, and everything else."""


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


@command.command(name="collect")
@click.option("--budget", default="60s", show_default=True, metavar="TIME", help="60s, 5m, 1h.")
@click.option("--out", "output", required=True, metavar="DB", help="The log to append to.")
@click.option("--families", default=",".join(FAMILIES), show_default=True, help="What to measure.")
@click.option("--candidates", type=click.IntRange(2), default=108, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def collect(budget: str, output: str, families: str, candidates: int, seed: int) -> None:
    """Measure schedules of random workloads. It goes on where it was, whatever interrupted it."""
    plan = Plan(seconds_of(budget), seed=seed)
    isa = levels.detect(cpu_flags())

    def say(status: Status) -> None:
        click.echo(
            f"{status.seconds_left:.0f} s left, {status.measured} measured, {status.failed} "
            f"failed: {status.doing}",
            err=True,
        )

    with Log(Path(output)) as log, Measurer() as measurer:
        collection = Collection(log, plan, say)
        loads = alternate([FAMILIES[name](seed, isa, candidates) for name in chosen(families)])
        try:
            collection.run(loads, measurer)
        finally:
            close_idle()
    click.echo(f"{collection.measured} measurements, {collection.failed} failures")
