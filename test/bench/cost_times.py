"""How long the cost model takes: to predict 1,000 candidates, and to learn from many rows.

Run as `python test/bench/cost_times.py [--rows N] [--candidates N]`; a minute on a quiet core.
Candidates are those of an integer product of many tokens, and the least time of some rounds counts.
Measurements that come with nybble are repeated until there are enough rows; learning is timed once,
in seconds of processor time, without reading the measurements.
"""

import json
import time
from collections.abc import Callable
from itertools import islice

import click
import numpy as np

from nybble.backends.cpu import isa as levels
from nybble.costmodel.data.dataset import groups_of
from nybble.costmodel.features.facts import facts_of
from nybble.costmodel.features.table import Call
from nybble.costmodel.learned.files import shipped
from nybble.costmodel.learned.model import inputs, ordered
from nybble.costmodel.learned.split import FOLDS, folds_of
from nybble.costmodel.learned.training import Rows, fit_counts, fit_order, fit_strange, fit_times
from nybble.tools.cost.learning import Measured, measured
from nybble.tools.cost.subject import Subject

TOKENS = 128


def least(task: Callable[[], object], rounds: int) -> float:
    """The least milliseconds of a task."""
    found: list[float] = []
    for _ in range(rounds):
        start = time.thread_time()
        task()
        found.append(time.thread_time() - start)
    return round(1e3 * min(found), 2)


def predicting(data: Measured, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds that some candidates of one kernel take, in all and by what is done."""
    texts = dict.fromkeys(one.text for one in data.records if one.tokens == TOKENS)
    subjects = [Subject(text, TOKENS, levels.get(data.level)) for text in texts]
    subject = next(one for one in subjects if one.dataflow == "int_dot")
    facts, call = facts_of(subject.kernel), Call(TOKENS)
    options = [*islice(subject.choices.candidates(), count)]
    model, target = shipped(), data.target
    x, _ = inputs(facts, call, options, target)
    seconds = model.raw("residual", x)
    tasks: dict[str, Callable[[], object]] = {
        "all": lambda: model.predict(facts, call, options, target),
        "features": lambda: inputs(facts, call, options, target),
        "times": lambda: model.raw("residual", x),
        "order": lambda: ordered(seconds, lambda few: model.raw("order", x[few])),
    }
    return {"candidates": len(options)} | {
        name: least(task, rounds) for name, task in tasks.items()
    }


def learning(data: Measured, count: int) -> dict[str, float]:
    """Seconds of processor time to learn each part from so many rows."""
    groups = groups_of(data.records)
    copies = -(-count // len(data.records))
    rows = Rows(groups * copies, data.target)
    folds = folds_of([group.problem for group in rows.groups])[rows.owner]
    everything = np.ones(len(rows.seconds), np.bool_)
    tasks: dict[str, Callable[[], object]] = {
        "features": lambda: (rows.x, rows.kinds),
        "times": lambda: fit_times(rows, everything),
        "order": lambda: fit_order(rows, everything),
        "strange": lambda: fit_strange(rows, everything),
        "counts": lambda: fit_counts(rows),
        "a fold of the intervals": lambda: fit_times(rows, folds != 0),
    }
    found: dict[str, float] = {"rows": len(everything)}
    for name, task in tasks.items():
        start = time.process_time()
        task()
        found[name] = round(time.process_time() - start, 1)
    parts = sum(found[name] for name in ("times", "order", "strange", "counts"))
    return found | {
        "model": round(parts, 1),
        "with intervals": round(parts + FOLDS * found["a fold of the intervals"], 1),
    }


@click.command()
@click.option("--rows", default=100_000, show_default=True)
@click.option("--candidates", default=1000, show_default=True)
@click.option("--rounds", default=30, show_default=True)
def main(rows: int, candidates: int, rounds: int) -> None:
    """Print the milliseconds of predictions, then the seconds of learning, as JSON."""
    data = measured(None)
    predicted = predicting(data, candidates, rounds)
    click.echo(json.dumps({"data": data.digest, "predict_ms": predicted}))
    if rows:
        click.echo(json.dumps({"learn_s": learning(data, rows)}))


if __name__ == "__main__":
    main()
