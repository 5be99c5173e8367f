"""Puts the page together: one HTML file that needs nothing from elsewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nybble import __version__
from nybble.costmodel.targets.target import Target
from nybble.tools.report.circuits import CircuitPoint, circuit_points
from nybble.tools.report.gather import EXPLAINED, Contents, ReportError, Stage
from nybble.tools.report.plots import against, area, roofline, shares
from nybble.tools.report.points import (
    KernelPoint,
    Measured,
    agreement,
    kernel_points,
    measured_points,
)
from nybble.tools.text_units import spelled_bytes, spelled_seconds

TEMPLATE = "report.html.jinja"
WORST = 10
WITH_KERNELS = ("scheduled", "fused")
"""Stages whose kernels can be told, the one that says most first."""


@dataclass(frozen=True)
class Machine:
    """The target that kernels of the stages are placed on, and how many of its cores they use."""

    target: Target
    threads: int


def page(contents: Contents, machine: Machine) -> str:
    """The HTML; ReportError where matplotlib is not installed or a report lacks an entry."""
    points = list(_points(contents.stages, machine))
    measured, left_out = measured_points(contents.benched)
    circuits, odd = circuit_points(contents.circuits)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"bytes": spelled_bytes, "seconds": spelled_seconds}
    template = environment.from_string(
        files("nybble.tools.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    )
    try:
        return template.render(
            title=contents.folder,
            version=__version__,
            sections=list(_sections(contents, points, measured, circuits)),
            explained=[_with_plots(one) for one in contents.explained],
            machine=machine.target,
            threads=machine.threads,
            points=points,
            roofline=Markup(roofline(points, machine.target, machine.threads)) if points else "",
            stages=contents.stages,
            circuits=circuits,
            area=Markup(area(circuits)) if circuits else "",
            left_out=[*contents.left_out, *dict.fromkeys([*left_out, *odd])],
            **_measured(measured),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ReportError(
            f"a report in {contents.folder} lacks something: {error!r}",
            accepted="reports of this version of nybble",
        ) from error


def _points(stages: tuple[Stage, ...], machine: Machine) -> Iterator[KernelPoint]:
    by_name = {stage.name: stage for stage in stages}
    chosen = next((by_name[name] for name in WITH_KERNELS if name in by_name), None)
    if chosen is not None:
        yield from kernel_points(chosen, machine.target, machine.threads)


def _sections(
    contents: Contents,
    points: list[KernelPoint],
    measured: list[Measured],
    circuits: list[CircuitPoint],
) -> Iterator[tuple[str, str]]:
    """The parts that the page has: anchor, heading."""
    for index, one in enumerate(contents.explained, 1):
        yield f"model-{index}", f"{one['model']} on {one['machine']}"
    if points:
        yield from (("roofline", "Roofline"), ("decisions", "Decisions"))
    if measured:
        yield "measured", "Predicted against measured"
    if circuits:
        yield "circuits", "Circuits"
    if contents.stages:
        yield "stages", "Stages"


def _with_plots(found: Mapping[str, Any]) -> dict[str, Any]:
    """A report of a model, with a plot in each of its phases."""
    phases: dict[str, Any] = {}
    for name in EXPLAINED:
        lines = found[name]["stages"]
        names = [" ".join(dict.fromkeys((line["part"], line["kernel"]))) for line in lines]
        plot = Markup(shares(names, [line["seconds"] for line in lines]))
        phases[name] = {**found[name], "plot": plot}
    return {**found, **phases}


def _measured(points: list[Measured]) -> dict[str, object]:
    """What the page says of measurements."""
    if not points:
        return {"measured": []}
    agree = agreement(points)
    apart = sorted(points, key=lambda one: -max(one.ratio / agree.ratio, agree.ratio / one.ratio))
    return {
        "measured": points,
        "agree": agree,
        "against": Markup(against(points)),
        "worst": apart[:WORST],
    }
