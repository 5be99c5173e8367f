"""`nybble verify` for processing elements: random products through Verilator.

Cases take the elements in turn, so that each is built once and all its cases run in one process.
Shapes rarely fill a tile, inputs pause at random, and some data are as large as can be. The last
row of each product is also given to the circuit of a loop, which shares nothing with the elements.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.fpga.rtl.coded import CodedSpec
from nybble.backends.fpga.rtl.designs import (
    SPARSE,
    Design,
    beats_of,
    random_product,
    random_sparse,
)
from nybble.backends.fpga.rtl.encoding import Beats, Product
from nybble.backends.fpga.rtl.loops import LoopRow, loop_sums
from nybble.backends.fpga.rtl.simulate import program, run
from nybble.backends.fpga.rtl.sparse_encoding import sparse_beats
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.element import Bipolar, Ternary, Uniform
from nybble.tools.models import circuit_cache
from nybble.tools.target import VerifyRequest
from nybble.tools.verify.answer import SHOWN, counts, failures, shown_progress, tell

PAUSES = (0, 0, 30, 128)
DATA = ("uniform", "extreme", "zero")


def signed(width: int) -> Uniform:
    """Two's complement integers."""
    return Uniform(width, 1 << (width - 1))


def bipolar(planes: int, taken: int) -> PeSpec:
    """Bipolar weights and activations of so many bits."""
    return PeSpec(Bipolar(planes), lanes=3, rows=2, depth=32, activation_bits=taken + 1, odd=True)


BITMOD = {bits: formats.get(f"bitmod{bits}g128").element for bits in (3, 4)}
DESIGNS = (
    Design("table", PeSpec(Bipolar(1), lanes=3, rows=2, depth=32)),
    Design("table", PeSpec(signed(2), lanes=2, rows=4, depth=16)),
    Design("table", PeSpec(Ternary(), group=3, lanes=3, rows=1, depth=32)),
    Design("table", PeSpec(signed(4), lanes=2, rows=2, depth=32)),
    Design(SPARSE, SparseSpec(block=4, rows=2, tokens=2)),
    Design(SPARSE, SparseSpec(block=16, rows=1, tokens=2)),
    Design("table", PeSpec(signed(3), lanes=4, rows=1, depth=64)),
    Design("table", PeSpec(Bipolar(3), group=3, lanes=2, rows=1, depth=32)),
    Design("table", PeSpec(Uniform(2), group=2, lanes=5, rows=3, depth=16)),
    Design("planes", PeSpec(Bipolar(2), group=2, lanes=3, rows=2, depth=32)),
    Design("multiply", PeSpec(signed(2), group=2, lanes=3, rows=1, depth=32)),
    Design("planes", PeSpec(Ternary(), group=3, lanes=2, rows=1, depth=32)),
    Design(SPARSE, SparseSpec(block=4, rows=1, tokens=1)),
    Design(SPARSE, SparseSpec(block=8, rows=1, tokens=2, dense=True)),
    Design("serial", CodedSpec(BITMOD[4], lanes=2, rows=2, depth=16)),
    Design("serial", CodedSpec(BITMOD[3], group=3, lanes=3, rows=1, depth=32)),
    Design("multiply", CodedSpec(BITMOD[3], group=2, lanes=2, rows=1, depth=32)),
    Design("planes", CodedSpec(BITMOD[4], group=2, lanes=2, rows=1, depth=32)),
    Design("xnor", bipolar(1, 1)),
    Design("xnor", bipolar(3, 2)),
    Design("planes", bipolar(2, 1)),
)  # fmt: skip


@dataclass(frozen=True)
class RtlCase:
    """One product: what goes in and what must come out, i64 [n, tokens]; loop: its last row."""

    number: int
    design: Design
    data: str
    pause: int
    shape: tuple[int, int]
    beats: Beats
    loop: LoopRow
    expected: NDArray[np.int64]

    def report(self) -> dict[str, Any]:
        """The case in the words of the command's report."""
        return {
            "case": self.number, "element": self.design.top, "data": self.data,
            "pause": self.pause, "shape": list(self.shape),
        }  # fmt: skip


def verify_rtl(request: VerifyRequest) -> int:
    """Runs the cases of a request; the exit code."""
    request.refuse()
    drawn = [draw(request.seed, number) for number in request.cases]
    with shown_progress(len(drawn)) as progress:
        faulty: list[dict[str, Any]] = []
        done = 0
        for design in DESIGNS:
            mine = [case for case in drawn if case.design is design]
            faulty += run_cases(design, mine)
            progress(done := done + len(mine))
        faulty += run_loops(drawn)
    found = {
        "target": str(request.target), "seed": request.seed, "cases": len(drawn),
        "elements": len({case.design.top for case in drawn}), "failed": len(faulty),
        "failures": faulty[:SHOWN],
    }  # fmt: skip
    told = [*counts(found, ("cases", "failed")), *failures(found)]
    return tell(found, told, request.json_file)


def run_cases(design: Design, mine: Sequence[RtlCase]) -> list[dict[str, Any]]:
    """The failures among the cases of one element."""
    if not mine:
        return []
    executable = program(design.verilog, design.top, circuit_cache())
    pauses = [case.pause for case in mine]
    failures: list[dict[str, Any]] = []
    results = run(executable, [case.beats for case in mine], design.y_words, pauses)
    for case, ran in zip(mine, results, strict=True):
        given = design.sums(ran.y, len(case.expected), case.beats)
        wrong = np.argwhere(given != case.expected)
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            fault = f"{len(wrong)} wrong: {given[at]} instead of {case.expected[at]} at {at}"
            failures.append({**case.report(), "fault": fault})
    return failures


def run_loops(drawn: Sequence[RtlCase]) -> list[dict[str, Any]]:
    """The failures of the loop's circuit."""
    failures: list[dict[str, Any]] = []
    found = loop_sums([case.loop for case in drawn], circuit_cache())
    for case, given in zip(drawn, found, strict=True):
        expected = int(case.expected[-1, 0])
        if given != expected:
            fault = f"the loop of the last row gives {given} instead of {expected}"
            failures.append({**case.report(), "fault": fault})
    return failures


def draw(seed: int, number: int) -> RtlCase:
    """The case of a number; everything follows from it and the seed."""
    random = np.random.default_rng([seed, number])
    design = DESIGNS[number % len(DESIGNS)]
    data = DATA[int(random.integers(0, 10)) // 4]
    pause = PAUSES[int(random.integers(0, len(PAUSES)))]
    spec = design.spec
    if isinstance(spec, SparseSpec):
        shape = (int(random.integers(1, 12)), int(random.integers(1, 9 * spec.block)))
        kept = int(random.integers(1, spec.block + 1))
        weights = random_sparse(shape, spec.block, kept, random)
        activations = _activations(data, (shape[1], spec.tokens), random)
        beats = sparse_beats(spec, weights, activations)
        loop = LoopRow(weights[-1].astype(np.int64) + 128, activations[:, 0], 1, -128)
        expected = weights.astype(np.int64) @ activations
    else:
        most = spec.depth * spec.rows
        shape = (int(random.integers(1, most + 1)), int(random.integers(1, 5 * spec.k)))
        dense = random_product(spec, shape, random)
        if data != "uniform":
            dense = replace(dense, activations=_ends(data, spec, dense, random))
        beats = beats_of(design.kind, spec, dense)
        step, low = spec.digits.step, spec.digits.low
        loop = LoopRow((dense.weights[-1] - low) // step, dense.activations, step, low)
        expected = dense.reference()[:, None]
    return RtlCase(number, design, data, pause, shape, beats, loop, expected)


def _ends(
    data: str, spec: PeSpec, product: Product, random: np.random.Generator
) -> NDArray[np.int64]:
    """The least and the largest activations, or those nearest to zero."""
    low, high = spec.activation_range
    ends = (low + spec.odd, high) if data == "extreme" else (-1, 1) if spec.odd else (0,)
    return random.choice(ends, product.activations.shape)


def _activations(
    data: str, shape: tuple[int, ...], random: np.random.Generator
) -> NDArray[np.int64]:
    if data == "zero":
        return np.zeros(shape, np.int64)
    choices = (-128, 127) if data == "extreme" else tuple(range(-128, 128))
    return random.choice(choices, shape)
