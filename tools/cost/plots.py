"""What `nybble cost eval --plots` draws: how far predictions are off, and what choices cost."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nybble.costmodel.learned.evaluation import Judge, Verdict
from nybble.costmodel.learned.training import Rows
from nybble.dialects.errors import NybbleError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]
LEAST = 30
"""Candidates of a workload that is drawn."""
WORST = 10


def draw(rows: Rows, verdict: Verdict, folder: Path) -> list[Path]:
    """PNG files in a folder, which is made; raises NybbleError without matplotlib or room."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as fault:
        raise NybbleError("plots need matplotlib", accepted="pip install 'nybble[cost]'") from fault
    judge = Judge(rows, LEAST)
    drawn: list[Path] = []
    for name, plot in PLOTS.items():
        figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
        plot(axes, judge, verdict)
        path = folder / f"{name}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=110)
        except OSError as fault:
            raise NybbleError(f"cannot write {path}: {fault.strerror}") from fault
        finally:
            plt.close(figure)
        drawn.append(path)
    return drawn


def predicted_and_measured(axes: "Axes", judge: Judge, verdict: Verdict) -> None:
    """A point for each measurement, coloured by family."""
    rows, named = judge.rows, np.array(judge.rows.families)
    for family in sorted(set(rows.families)):
        own = named == family
        axes.scatter(
            1e6 * rows.seconds[own], 1e6 * verdict.seconds[own], s=4, alpha=0.4, label=family
        )
    ends = [1e6 * rows.seconds.min(), 1e6 * rows.seconds.max()]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="measured, us", ylabel="predicted, us")
    axes.set_title("Problems that the model has not seen")
    axes.legend(markerscale=3, fontsize=8)


def calibration(axes: "Axes", judge: Judge, verdict: Verdict) -> None:
    """Share of measurements within a factor of the prediction, by family."""
    rows, named = judge.rows, np.array(judge.rows.families)
    errors = np.abs(np.log(rows.seconds / verdict.seconds))
    for family in sorted(set(rows.families)):
        own = np.sort(errors[named == family])
        axes.plot(np.exp(own), np.arange(1, len(own) + 1) / len(own), label=family)
    axes.axhline(0.9, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlim=(1, 3), xlabel="factor between prediction and measurement", ylabel="share")
    axes.set_title("How wide an interval must be")
    axes.legend(fontsize=8)


def regret(axes: "Axes", judge: Judge, verdict: Verdict) -> None:
    """Share of workloads whose chosen candidate is at most so much slower than the best."""
    rows = judge.rows
    orders = _orders(rows, verdict)
    for name, order in orders.items():
        found = np.sort(judge.regrets(order))
        axes.plot(found, np.arange(1, len(found) + 1) / max(len(found), 1), label=name)
    axes.set(xlim=(0, 100), xlabel="slower than the best, %", ylabel="share of workloads")
    axes.set_title("The first choice")
    axes.legend()


def trials(axes: "Axes", judge: Judge, verdict: Verdict) -> None:
    """How near the best of the first few candidates is to the best of all."""
    rows, most = judge.rows, 30
    orders = _orders(rows, verdict)
    for name, order in orders.items():
        curves: list[Array] = []
        for place in judge.judged:
            taken = rows.seconds[place][np.argsort(order[place], kind="stable")][:most]
            curves.append(100 * (np.minimum.accumulate(taken) / rows.seconds[place].min() - 1))
        if curves:
            axes.plot(np.arange(1, most + 1), np.mean(curves, axis=0), label=name)
    axes.set(yscale="log", xlabel="candidates measured", ylabel="slower than the best, %")
    axes.set_title("Best against trials")
    axes.legend()


def worst(axes: "Axes", judge: Judge, verdict: Verdict) -> None:
    """The workloads with the largest regret."""
    regrets = judge.regrets(verdict.order)
    judged = [group for group in judge.rows.groups if len(group) >= LEAST]
    order = np.argsort(-regrets)[:WORST][::-1]
    axes.barh([judged[place].name for place in order], regrets[order])
    axes.set(xlabel="slower than the best, %")
    axes.set_title("The worst choices")
    axes.tick_params(axis="y", labelsize=7)


def _orders(rows: Rows, verdict: Verdict) -> dict[str, Array]:
    chance = np.random.default_rng(0).random(len(rows.seconds))
    return {"model": verdict.order, "analytic": rows.analytic, "random": chance}


PLOTS: dict[str, Callable[["Axes", Judge, Verdict], None]] = {
    "predicted_and_measured": predicted_and_measured,
    "calibration": calibration,
    "regret": regret,
    "trials": trials,
    "worst": worst,
}
"""Name of the file -> what draws it."""
