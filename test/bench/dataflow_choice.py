"""Whether `select-dataflow` decides right, by the measurements that come with nybble.

Run as `python test/bench/dataflow_choice.py`; a minute. Each workload that was measured in several
dataflows is asked about with the estimates beside the lowerings and with a model that has not seen
its problem; kernels have the sizes that their lowerings take by themselves. Regret is how much
slower the choice is than the best of them, what prepares the activation being estimated in all.
"""

import json
from collections.abc import Iterator

import click
import numpy as np

from nybble.backends.cpu.dataflows import CPU
from nybble.costmodel.data.dataset import Group, groups_of
from nybble.costmodel.features.estimate import CLOCK
from nybble.costmodel.learned.split import folds_of
from nybble.costmodel.learned.training import Rows, out_of_fold
from nybble.dialects.lowbit import formats
from nybble.passes.targets import Product
from nybble.tools.cost.learning import measured

MODE = "i8"
PRODUCTS = ("int_dot", "dequantize", "lut", "lut_dot")


def product_of(group: Group, level: str) -> Product | None:
    """The product that a workload is of, at a level; None for another kernel, and for several
    weights."""
    if group.facts[0].family not in PRODUCTS or group.facts[0].numbers["parts"] > 1:
        return None
    spec, shape, *_ = group.problem.split()
    rows, cols = map(int, shape.split("x"))
    return Product(formats.get(spec), rows, cols, group.call.tokens, MODE, level)


def places(group: Group, product: Product) -> Iterator[tuple[int, float, float]]:
    """Of each dataflow: the row of its usual sizes, its estimated cycles, and its setup's."""
    for verdict in CPU.verdicts(product):
        sketch = CPU.sketch(product, verdict.dataflow) if verdict.refusal is None else None
        usual = sketch.choices.settle({}).items() if sketch and sketch.choices else {}
        for row, facts in enumerate(group.facts):
            alike = sketch is not None and dict(facts.numbers) == dict(sketch.facts.numbers)
            same = facts.family == verdict.dataflow and usual <= group.options[row].items()
            if alike and same:
                yield row, verdict.cycles, verdict.setup
                break


@click.command()
def main() -> None:
    """Print the regret of both, as JSON."""
    data = measured(None)
    rows = Rows(groups_of(data.records), data.target)
    folds = np.asarray(folds_of([group.problem for group in rows.groups]))[rows.owner]
    learned = out_of_fold(rows, folds, score=False).seconds
    regrets: dict[str, list[float]] = {"estimated": [], "learned": []}
    first = 0
    for group in rows.groups:
        product, start = product_of(group, data.level), first
        first += len(group)
        found = [*places(group, product)] if product else []
        if len(found) < 2:
            continue
        at, cycles, setup = (np.array(one) for one in zip(*found, strict=True))
        total = group.seconds[at] * group.call.shares + setup / CLOCK
        said = learned[start + at] * group.call.shares + setup / CLOCK
        for name, order in (("estimated", cycles), ("learned", said)):
            regrets[name].append(float(total[np.argmin(order)] / total.min() - 1))
    report = {
        name: {
            "workloads": len(one),
            "right": float(np.mean(np.array(one) == 0.0)),
            "regret_mean": 100 * float(np.mean(one)),
            "regret_max": 100 * max(one),
        }
        for name, one in regrets.items()
    }
    click.echo(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
