"""Whether `fuse-kernels` decides right: both sides of each decision, measured in turn.

Run as `python test/bench/fusion.py [--graphs N] [--rounds N]`; twenty minutes on a quiet core. Each
graph is compiled with its whole group as one launch and cut into single launches, each twice, in
memory of its own: where weights happen to lie makes a difference of up to a tenth. All are run in
turn, in one process and on one thread, and the least time of each side counts. A decision is right
if the side that the pass takes is the faster one; where they differ by less than BAND there is
nothing to decide.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import click
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.fuse_kernels import FuseKernels
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import stages_between
from nybble.tools.cost.graphs import FUSIONS, kernels_of
from nybble.tools.mlir_file import FIRST
from nybble.tools.random_values import Inputs
from nybble.tools.run_file import (
    PROGRAM,
    SCHEDULED,
    Compiled,
    FileRun,
    compile_function,
    variant_name,
)

BAND = 0.03
WIDTHS = (256, 640, 1024, 2048)
TOKENS = (1, 4, 32, 128)
FORMATS = ("q4_0", "q8_0", "w4g128", "w2g128")
WHOLE, CUT = 10**6, -99
"""Margins of the pass at which a group is never and always cut."""
SEEN = 1024
"""Rows of weights at most: further tiles repeat the same loops."""


@dataclass(frozen=True)
class Graph:
    """A function with one group in it. width: columns; rows: of each weight."""

    kind: str
    spec: str
    width: int
    tokens: int

    @property
    def text(self) -> str:
        """Its operators."""
        return FUSIONS[self.kind].format(k=self.width, m=min(self.width, SEEN), spec=self.spec)

    def compiled(self, margin: int) -> tuple[Compiled, int]:
        """The function in memory, and its kernels. margin: of `fuse-kernels`."""
        run = FileRun("graph", self.tokens, 0, 0, 1, None, "i8-only")
        module = parse_module(make_context(), self.text, "<graph>")
        (function,) = module.ops
        values = Inputs(run.tokens, run.position, run.seed).of(function)
        schedule(module, margin, run)
        count = len(kernels_of(module, self.tokens))
        name = variant_name(module, "graph", self.tokens)
        return compile_function(module, name, values, frozenset(), run), count

    def decided(self) -> int:
        """Kernels that the pass makes by itself."""
        run = FileRun("graph", self.tokens, 0, 0, 1, None, "i8-only")
        module = parse_module(make_context(), self.text, "<graph>")
        schedule(module, None, run)
        return len(kernels_of(module, self.tokens))


def schedule(module: ModuleOp, margin: int | None, run: FileRun) -> None:
    """Bring a module to the stage of scheduled kernels. margin: None for the pass's own."""
    context = make_context(allow_unregistered=True)
    for stage in stages_between(FIRST, SCHEDULED):
        passes = configure(build_pipeline(stage.passes), run.options().pass_options())
        run_passes(context, module, [with_margin(one, margin) for one in passes])


def with_margin(step: ModulePass, margin: int | None) -> ModulePass:
    """The pass, with another margin if it is the one that fuses."""
    if margin is None or not isinstance(step, FuseKernels):
        return step
    return replace(step, margin=margin)


def graphs(most: int) -> Iterator[Graph]:
    """All kinds in all sizes, formats in turn."""
    found = [
        Graph(kind, FORMATS[(i + j) % len(FORMATS)], width, tokens)
        for kind in FUSIONS
        for i, width in enumerate(WIDTHS)
        for j, tokens in enumerate(TOKENS)
    ]
    yield from found[:most]


def least(sides: list[Compiled], rounds: int) -> list[float]:
    """The least seconds of each side, which take turns."""
    best = [float("inf")] * len(sides)
    for side in sides:
        side.run()
    for _ in range(rounds):
        for place, side in enumerate(sides):
            before = time.thread_time()
            side.executor.run((PROGRAM,), side.rows, side.position)
            best[place] = min(best[place], time.thread_time() - before)
    return best


@click.command()
@click.option("--graphs", "most", default=len(FUSIONS) * len(WIDTHS) * len(TOKENS))
@click.option("--skip", default=0, show_default=True, help="Graphs at the start to leave out.")
@click.option("--rounds", default=300, show_default=True)
@click.option("--builds", default=2, show_default=True, help="Of each side, in memory of its own.")
def main(most: int, skip: int, rounds: int, builds: int) -> None:
    """Print a line for each graph, then how many decisions were right."""
    right = counted = 0
    for graph in [*graphs(most)][skip:]:
        built = [graph.compiled(margin) for margin in (WHOLE, CUT) * builds]
        sides, (one, many) = [side for side, _ in built], [count for _, count in built[:2]]
        try:
            found = least(sides, rounds)
        finally:
            for side in sides:
                side.executor.close()
        taken, other = min(found[::2]), min(found[1::2])
        gain = other / taken - 1
        fuses = graph.decided() == one
        clear = one != many and abs(gain) > BAND
        counted += clear
        right += clear and fuses == (gain > 0)
        sides = f"{one} launches {taken * 1e6:8.1f} us, {many} launches {other * 1e6:8.1f} us"
        click.echo(
            f"{graph.kind:14} {graph.spec:7} {graph.width:5} n={graph.tokens:<4} {sides}: "
            f"fusing gains {gain:+.1%}{'' if clear else ' (within the band)'}, "
            f"decided to {'fuse' if fuses else 'cut'}"
        )
    click.echo(json.dumps({"graphs": most - skip, "clear": counted, "right": right}))


if __name__ == "__main__":
    main()
