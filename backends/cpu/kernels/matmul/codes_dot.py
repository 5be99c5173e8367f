"""Integer dot products of packed codes, whatever their pieces are and whatever they stand for.

Codes that are their own levels are multiplied piece by piece where they lie, a piece of more
significance shifted once at the end. Codes of a table become levels first, a byte each.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TypeAlias

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.kernels.matmul.elements import WORDS
from nybble.backends.cpu.kernels.matmul.intdot import Activation, IntDot, int_dot
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import CodeReader
from nybble.backends.cpu.tile_layout import LANES

LEVEL_BITS = 8
Run: TypeAlias = list[Sequence[Value]]
"""What each piece keeps between `open` and `close`."""


class CodesDot:
    """Sums of `step * level * activation` for some columns of 16 rows.

    widths: of the pieces that are multiplied as they lie; one of 8 bits for levels.
    columns: what is added in one go, at least.
    """

    def __init__(self, b: KernelBuilder, spec: MatmulSpec, widths: tuple[int, ...], columns: int):
        self.b = b
        self.step = spec.integers.step
        self.words = [columns * width // 32 for width in widths]
        largest = _largest(spec) if widths == (LEVEL_BITS,) else 0
        self.dots: list[IntDot] = [
            int_dot(spec.isa, width, spec.digits, largest, words)
            for width, words in zip(widths, self.words, strict=True)
        ]
        self.shifts = [sum(widths[:index]) for index in range(len(widths))]
        self.factor = self.step * self.dots[0].offset - spec.integers.zero_point

    @cached_property
    def accumulators(self) -> int:
        """How many vectors a run keeps."""
        return sum(dot.accumulators for dot in self.dots)

    @cached_property
    def carried(self) -> int:
        """How many vectors `start` makes."""
        return sum(dot.carried for dot in self.dots)

    @property
    def run(self) -> int:
        """How many times `columns` may be added between `open` and `close`."""
        return min(dot.run // words for dot, words in zip(self.dots, self.words, strict=True))

    def start(self, initial: Value) -> list[Value]:
        """Sums whose total is `initial` (i32 lanes): `factor` times the activations' sum."""
        nothing = self.b.const(0, WORDS)
        sums: list[Value] = []
        for index, dot in enumerate(self.dots):
            sums += dot.start(self.b, initial if index == 0 and self.step == 1 else nothing)
        return sums

    def total(self, sums: Sequence[Value], initial: Value) -> Value:
        """The sums as i32 lanes; `initial` is what they started at."""
        total = self.b.const(0, WORDS)
        parts = self._by_piece(sums)
        for dot, shift, mine in zip(self.dots, self.shifts, parts, strict=True):
            part = dot.total(self.b, mine)
            total = total + (part << shift) if shift else part
        return total if self.step == 1 else total * self.step + initial

    def _by_piece(self, sums: Sequence[Value]) -> list[Sequence[Value]]:
        parts: list[Sequence[Value]] = []
        first = 0
        for dot in self.dots:
            parts.append(sums[first : first + dot.carried])
            first += dot.carried
        return parts

    def open(self, sums: Sequence[Value]) -> Run:
        """A run that begins: see IntDot."""
        parts = self._by_piece(sums)
        return [dot.open(mine) for dot, mine in zip(self.dots, parts, strict=True)]

    def close(self, sums: Sequence[Value], run: Run) -> list[Value]:
        """The sums with a run."""
        parts = zip(self.dots, self._by_piece(sums), run, strict=True)
        return [one for dot, mine, added in parts for one in dot.close(self.b, mine, added)]

    def activations(self, words: Sequence[Sequence[Value]]) -> list[list[Activation]]:
        """For each piece, 4 columns' digits (i32) after another, made ready."""
        b = self.b
        splats = [[b.broadcast(digit, LANES) for digit in word] for word in words]
        return [[dot.prepare(b, word) for word in splats] for dot in self.dots]

    def add(self, run: Run, word: Value, x: Activation) -> Run:
        """Add a vector of levels, one plane of 4 columns."""
        return [self.dots[0].step(self.b, run[0], word, [x])]

    def add_step(
        self,
        run: Run,
        reader: CodeReader,
        place: tuple[Value, int],
        xs: Sequence[Sequence[Activation]],
    ) -> Run:
        """Add the pieces of a step of columns. place: the byte of the step, and the sub-tile."""
        at, subtile = place
        added: Run = []
        for index, (dot, mine) in enumerate(zip(self.dots, run, strict=True)):
            for vector in range(reader.layout.step // (4 * dot.planes)):
                word = reader.word(at, index, vector, subtile)
                columns = xs[index][vector * dot.planes : (vector + 1) * dot.planes]
                mine = dot.step(self.b, mine, word, columns)
            added.append(mine)
        return added


def level_dot(spec: MatmulSpec) -> IntDot:
    """The form for levels, one in a byte."""
    return int_dot(spec.isa, LEVEL_BITS, spec.digits, _largest(spec))


def _largest(spec: MatmulSpec) -> int:
    """The largest level of a weight."""
    assert isinstance(spec.weight, Codes)
    integers = spec.integers
    return max(integers.levels + integers.specials, default=2**spec.weight.bits - 1)
