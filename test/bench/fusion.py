"""Whether `fuse-kernels` decides right: both sides of each decision, measured in turn.

Run as `python test/bench/fusion.py [--widths N,N] [--formats F,F]`, ten minutes on a quiet core.
Each graph is compiled with its whole group as one launch and cut into single launches, both of
which read and write the same memory: where weights happen to lie makes a difference of up to a
tenth. They run in turn, in one process and on one thread, and the least time of each counts. That
is done for several places in memory, and the median of their gains is what fusing gains. What takes
little time is run many times in a row, so that calling it does not count. A decision is right if
the side that the pass takes is the faster one; where they differ by less than BAND there is nothing
to decide.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

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
LONG, MOST = 1e-4, 64
"""Seconds that are measured at once, and how many runs in a row at most make them."""


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


def graphs(widths: Sequence[int], formats: Sequence[str]) -> list[Graph]:
    """All kinds in all sizes, formats in turn."""
    return [
        Graph(kind, formats[(i + j) % len(formats)], width, tokens)
        for kind in FUSIONS
        for i, width in enumerate(widths)
        for j, tokens in enumerate(TOKENS)
    ]


@dataclass(frozen=True)
class Pair:
    """A graph in one launch and in several, in the same memory."""

    fused: Compiled
    cut: Compiled

    def least(self, rounds: int) -> tuple[float, float]:
        """The least seconds of either, which take turns."""
        self.cut.executor.share(self.fused.executor, self.fused.layout.order)
        sides = (self.fused, self.cut)
        once = max(min(side.run() for _ in range(3)) for side in sides)
        programs = (PROGRAM,) * max(1, min(MOST, int(LONG / once)))
        best = [float("inf")] * len(sides)
        for _ in range(rounds):
            for place, side in enumerate(sides):
                before = time.perf_counter()
                side.executor.run(programs, side.rows, side.position)
                best[place] = min(best[place], time.perf_counter() - before)
        return best[0] / len(programs), best[1] / len(programs)

    def close(self) -> None:
        """Forget both."""
        self.fused.executor.close()
        self.cut.executor.close()


@dataclass(frozen=True)
class Found:
    """fused, cut: seconds, medians over some places in memory; gains: of fusing, at each."""

    fused: float
    cut: float
    gains: tuple[float, ...]

    @property
    def gain(self) -> float:
        """What fusing gains."""
        return median(self.gains)


def found(graph: Graph, rounds: int, places: int) -> tuple[Found, int, int]:
    """Both sides of a graph, and how many launches each has."""
    times: list[tuple[float, float]] = []
    pairs: list[Pair] = []
    one = many = 0
    try:
        for _ in range(places):
            (fused, one), (cut, many) = graph.compiled(WHOLE), graph.compiled(CUT)
            pairs.append(Pair(fused, cut))
            times.append(pairs[-1].least(rounds))
    finally:
        for pair in pairs:  # not before: the next would get the same memory
            pair.close()
    gains = tuple(cut / fused - 1 for fused, cut in times)
    fused, cut = (median(side) for side in zip(*times, strict=True))
    return Found(fused, cut, gains), one, many


@click.command()
@click.option("--widths", default=",".join(map(str, WIDTHS)), show_default=True)
@click.option("--formats", default=",".join(FORMATS), show_default=True)
@click.option("--graphs", "most", default=None, type=int, help="At most; default: all.")
@click.option("--skip", default=0, show_default=True, help="Graphs at the start to leave out.")
@click.option("--rounds", default=200, show_default=True)
@click.option("--places", default=5, show_default=True, help="In memory.")
def main(widths: str, formats: str, most: int | None, skip: int, rounds: int, places: int) -> None:
    """Print a line for each graph, then how many decisions were right."""
    right = counted = 0
    asked = graphs([*map(int, widths.split(","))], formats.split(","))[skip:most]
    for graph in asked:
        said, one, many = found(graph, rounds, places)
        fuses = graph.decided() == one
        clear = one != many and abs(said.gain) > BAND
        counted += clear
        right += clear and fuses == (said.gain > 0)
        low, high = min(said.gains), max(said.gains)
        click.echo(
            f"{graph.kind:14} {graph.spec:7} {graph.width:5} n={graph.tokens:<4} "
            f"{one} launches {said.fused * 1e6:8.2f} us, {many} launches {said.cut * 1e6:8.2f} us: "
            f"fusing gains {said.gain:+.1%} ({low:+.1%} to {high:+.1%})"
            f"{'' if clear else ', within the band'}, decided to {'fuse' if fuses else 'cut'}"
        )
    click.echo(json.dumps({"graphs": len(asked), "clear": counted, "right": right}))


if __name__ == "__main__":
    main()
