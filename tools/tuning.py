"""`nybble tune`: a schedule for every kernel of a model or a file, as a database for `compile`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import click
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.llvm.workers import close_idle
from nybble.costmodel.canonical import canonical
from nybble.costmodel.data.schedules import Entry, Schedules, read_schedules
from nybble.costmodel.features.table import Call
from nybble.costmodel.learned.files import read_model, shipped
from nybble.costmodel.learned.model import CostModel
from nybble.costmodel.search import Answer
from nybble.costmodel.targets.reader import target_for_level
from nybble.dialects.fused.kernel import KernelOp
from nybble.frontend.compile_model import CompileOptions
from nybble.passes.apply_schedules import kernel_key
from nybble.passes.targets import load_target
from nybble.passes.tile_kernels import TOKENS, Chooser
from nybble.tools.cost.collect import Built, Plan, stand
from nybble.tools.cost.measuring import Measurer
from nybble.tools.cost.subject import Subject


def with_schedules(options: CompileOptions, path: str | None) -> CompileOptions:
    """Options with what a database holds; a warning where it was made for something else."""
    if path is None:
        return options
    found = read_schedules(Path(path))
    fault = found.mismatch(stand())
    if fault is not None:
        click.echo(f"nybble: warning: {path} is not applied: {fault}", err=True)
        return options
    return replace(options, schedules=found.entries, costs=found.costs)


def cost_model(path: str | None) -> CostModel:
    """A model of a file, or the one that comes with nybble."""
    return shipped() if path is None else read_model(Path(path))


def chooser(model: CostModel, options: CompileOptions) -> Chooser:
    """What asks the model about kernels that are compiled with these options."""
    isa = str(options.pass_options()["isa"])
    return Chooser(model, target_for_level(isa), load_target("cpu"), isa, options.threads)


@dataclass(frozen=True)
class Choice:
    """What was chosen for one kernel. gain: predicted or measured, of the time it had."""

    key: str
    entry: Entry
    changed: bool
    gain: float
    measured: bool


def tuned(module: ModuleOp, asked: Chooser, top: int) -> list[Choice]:
    """A choice for every kernel of a scheduled module, each distinct kernel once.

    top: candidates that are measured before one is taken; 0 to trust the model.
    """
    done: dict[str, Choice] = {}
    with Measurer() as measurer:
        for kernel, answer in asked.answers(module):
            key = kernel_key(kernel)
            if key in done:
                continue
            taken, gain = answer.taken, answer.gain
            if top:
                taken, gain = best_measured(kernel, answer, asked, top, measurer)
            done[key] = _choice(kernel, answer, key, (taken, gain), measured=top > 0)
    close_idle()
    return [*done.values()]


def _choice(
    kernel: KernelOp, answer: Answer, key: str, made: tuple[int, float], *, measured: bool
) -> Choice:
    schedule, (taken, gain) = kernel.schedule, made
    assert schedule is not None
    because = answer.because() if not measured else "measured, the best of the model's favourites"
    return Choice(
        key,
        Entry(kernel.kernel_name.data, schedule.dataflow.data, answer.candidates[taken], because),
        taken != answer.incumbent,
        gain,
        measured,
    )


def best_measured(
    kernel: KernelOp, answer: Answer, asked: Chooser, top: int, measurer: Measurer
) -> tuple[int, float]:
    """The fastest of the model's favourites and the incumbent, which all take turns, and the share
    of the incumbent's time that it gains."""
    from nybble.backends.cpu import isa as levels

    schedule, question = kernel.schedule, asked.question(kernel)
    assert schedule is not None
    assert question is not None
    capacity = schedule.option(TOKENS) or 1
    subject = Subject(canonical(kernel), capacity, levels.get(asked.isa))
    places = [answer.incumbent, *(one for one in answer.order if one != answer.incumbent)][
        : top + 1
    ]
    built = Built(subject)
    for place in places:
        built.add([dict(answer.candidates[place])])
    calls = (question.call, *question.others)
    batch, owners = built.batch(calls, Plan(0.0))
    found = measurer.measure(batch)
    seconds: dict[tuple[tuple[str, int], ...], dict[Call, float]] = {}
    for number, (index, call) in enumerate(owners):
        if found.seconds.get(number):
            row = seconds.setdefault(tuple(built.options[index].items()), {})
            row[call] = min(found.seconds[number])
    rows = {place: seconds.get(tuple(answer.candidates[place].items()), {}) for place in places}
    return fastest_in_all(rows, answer.incumbent, calls)


def fastest_in_all(
    seconds: Mapping[int, Mapping[Call, float]], incumbent: int, calls: Sequence[Call]
) -> tuple[int, float]:
    """The candidate that is fastest on the whole among those that no call makes slower than the
    incumbent, and what it gains, in the mean; the incumbent if there is none.

    seconds: of each place, of each call that was run.
    """
    before = seconds[incumbent]
    shares = {
        place: [taken[call] / before[call] for call in calls]
        for place, taken in seconds.items()
        if all(call in taken and call in before for call in calls)
    }
    able = {place: fmean(ratios) for place, ratios in shares.items() if max(ratios) <= 1.0}
    taken = min(able, key=lambda place: able[place], default=incumbent)
    return taken, 1 - able.get(taken, 1.0)


def database(choices: Sequence[Choice], costs: str) -> Schedules:
    """The choices that change something, for this machine and compiler. costs: see `Schedules`."""
    return Schedules(stand(), {one.key: one.entry for one in choices if one.changed}, costs)
