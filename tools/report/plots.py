"""The plots of the page, as SVG text that needs nothing from elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from itertools import pairwise
from typing import Any

from nybble.costmodel.targets.target import Target
from nybble.tools.report.circuits import CircuitPoint
from nybble.tools.report.gather import ReportError
from nybble.tools.report.points import KernelPoint, Measured

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart by people who see colours differently (Okabe and Ito, 2008)."""
GREY = "#777777"
# matplotlib has no typed interface for axes that strict checking accepts, hence Any.
Draw = Callable[[Any], None]


def drawn(draw: Draw, size: tuple[float, float]) -> str:
    """The SVG of a figure that `draw` fills; ReportError where matplotlib is not installed."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ReportError(
            "a plot needs matplotlib", accepted="pip install 'nybble[cost]'"
        ) from error
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nybble", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().partition("?>")[2].partition(">")[2]


def roofline(points: Sequence[KernelPoint], target: Target, cores: int) -> str:
    """Operations a second against operations for a byte, under the roofs of a target."""

    def draw(axes: Any) -> None:
        used = [one for one in points if one.operations]
        low = min([one.intensity for one in used] + [0.1]) / 2
        high = max([one.intensity for one in used] + [1000.0]) * 2
        peaks = {kind: rate.core.value * cores for kind, rate in target.rates.items()}
        tallest = max(peaks.values())
        speed = target.main.speed(cores)
        axes.plot([low, tallest / speed], [low * speed, tallest], color=GREY, linewidth=1)
        axes.annotate(
            f"{target.main.name} {speed / 1e9:,.0f} GB/s",
            (low * 2, low * 0.8 * speed),
            color=GREY,
        )
        for kind, peak in _roofs(peaks):
            axes.plot([peak / speed, high], [peak, peak], color=GREY, linewidth=0.8)
            axes.annotate(
                f"{kind} {peak / 1e9:,.0f} GOP/s", (high, peak), color=GREY, ha="right", va="bottom"
            )
        for index, phase in enumerate(dict.fromkeys(one.phase for one in used)):
            chosen = [one for one in used if one.phase == phase]
            axes.scatter(
                [one.intensity for one in chosen],
                [one.rate for one in chosen],
                color=COLOURS[index % len(COLOURS)],
                label=phase or "any",
                s=22,
                zorder=3,
            )
        axes.set(xscale="log", yscale="log", xlim=(low, high))
        axes.set_xlabel(f"operations for a byte of {target.main.name}")
        axes.set_ylabel("operations a second, predicted")
        axes.legend(frameon=False, loc="lower right")

    return drawn(draw, (7.5, 4.6))


def _roofs(peaks: dict[str, float]) -> list[tuple[str, float]]:
    """The peaks of arithmetic that are worth a line, none close above another."""
    found: list[tuple[str, float]] = []
    for kind in ("f32", "bf16", "f16", "i8", "b1"):
        near = any(0.7 < peaks[kind] / peak < 1.4 for _, peak in found) if kind in peaks else True
        if not near:
            found.append((kind, peaks[kind]))
    return found


def against(points: Sequence[Measured]) -> str:
    """Measured against predicted times, one colour for each family."""

    def draw(axes: Any) -> None:
        ends = [one.measured for one in points] + [one.predicted for one in points]
        low, high = min(ends) * 1e6 / 1.5, max(ends) * 1e6 * 1.5
        axes.plot([low, high], [low, high], color=GREY, linewidth=1)
        axes.plot([low, high], [low * 2, high * 2], color=GREY, linewidth=0.6, linestyle=":")
        axes.plot([low, high], [low / 2, high / 2], color=GREY, linewidth=0.6, linestyle=":")
        for index, family in enumerate(dict.fromkeys(one.family for one in points)):
            chosen = [one for one in points if one.family == family]
            axes.scatter(
                [one.predicted * 1e6 for one in chosen],
                [one.measured * 1e6 for one in chosen],
                color=COLOURS[index % len(COLOURS)],
                marker="o" if index < len(COLOURS) else "^",
                label=family,
                s=20,
                zorder=3,
            )
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axes.set_xlabel("predicted, us")
        axes.set_ylabel("measured, us")
        axes.legend(frameon=False, fontsize=7, loc="upper left")

    return drawn(draw, (5.6, 5.0))


def shares(names: Sequence[str], seconds: Sequence[float]) -> str:
    """Where the time of a phase goes: a bar for each kernel."""

    def draw(axes: Any) -> None:
        places = range(len(names))
        axes.barh(list(places), [one * 1e3 for one in seconds], color=COLOURS[0])
        axes.set_yticks(list(places), list(names))
        axes.invert_yaxis()
        axes.set_xlabel("ms")

    return drawn(draw, (7.5, 0.24 * len(names) + 0.7))


def area(points: Sequence[CircuitPoint]) -> str:
    """Products a cycle against LUTs, a colour for each way of multiplying."""

    def draw(axes: Any) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        for index, series in enumerate(dict.fromkeys(one.series for one in points)):
            chosen = [one for one in points if one.series == series]
            colour = COLOURS[index % len(COLOURS)]
            at = ([one.luts for one in chosen], [one.rate for one in chosen])
            axes.scatter(*at, color=colour, label=series, s=24, zorder=3)
            for one in chosen:
                axes.annotate(
                    one.label, (one.luts, one.rate), xytext=(4, 4 - 12 * (index % 2)),
                    textcoords="offset points", fontsize=7, color=colour,
                )  # fmt: skip
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter(NullFormatter())
        axes.margins(0.12, 0.2)
        axes.grid(which="both", linewidth=0.3)
        axes.set_xlabel("LUTs")
        axes.set_ylabel("products a cycle")
        axes.legend(frameon=False, loc="upper left")

    return drawn(draw, (7.5, 4.6))


def phases(found: Mapping[str, Mapping[str, float]], cycles: float, pipes: float) -> str:
    """What pipelines and memory do in each phase of a sparse product, as wide as it takes long.

    found: by name the share of `cycles`, instructions a cycle of all pipelines, and the share of
    memory's bytes, as `Timing.phases` has them.
    """

    def draw(axes: Any) -> None:
        starts = [0.0]
        for one in found.values():
            starts.append(starts[-1] + one["cycles"] * cycles / 1e3)
        widths = [last - first for first, last in pairwise(starts)]
        axes.bar(
            starts[:-1], [one["ipc"] / pipes for one in found.values()], widths,
            align="edge", color=COLOURS[5], edgecolor="white",
            label="instructions of what pipelines can issue",
        )  # fmt: skip
        axes.hlines(
            [one["dram_utilisation"] for one in found.values()], starts[:-1], starts[1:],
            color=COLOURS[1], linewidth=3, label="bytes of what memory can move",
        )  # fmt: skip
        for name, first, width in zip(found, starts, widths, strict=False):
            if width > starts[-1] / 50:
                axes.annotate(name, (first + width / 2, 1.02), ha="center")
        axes.set(xlim=(0, starts[-1]), ylim=(0, 1.1))
        axes.set_xlabel("thousand cycles")
        axes.set_ylabel("share used")
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)

    return drawn(draw, (7.5, 3.6))
