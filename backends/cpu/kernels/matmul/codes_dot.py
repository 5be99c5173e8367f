"""Integer dot products of packed codes, whatever their pieces are and whatever they stand for.

Codes that are their own levels are multiplied piece by piece where they lie, a piece of more
significance shifted once at the end. Codes of a table become levels first, a byte each.
"""

from collections.abc import Sequence
from functools import cached_property

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.elements import WORDS
from nybble.backends.cpu.kernels.matmul.intdot import Activation, IntDot, int_dot
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import CodeReader

LEVEL_BITS = 8


class CodesDot:
    """Sums of `step * level * activation` for some columns of 16 rows.

    widths: of the pieces that are multiplied as they lie; one of 8 bits for levels.
    """

    def __init__(self, b: KernelBuilder, spec: MatmulSpec, widths: tuple[int, ...]):
        self.b = b
        self.step = spec.integers.step
        self.dots: list[IntDot] = [int_dot(spec.isa, width, spec.digits) for width in widths]
        self.shifts = [sum(widths[:index]) for index in range(len(widths))]

    @cached_property
    def accumulators(self) -> int:
        """How many vectors `start` makes."""
        return sum(dot.accumulators for dot in self.dots)

    def start(self, initial: Value) -> list[Value]:
        """Accumulators whose total is `initial` (i32 lanes)."""
        nothing = self.b.const(0, WORDS)
        sums: list[Value] = []
        for index, dot in enumerate(self.dots):
            sums += dot.start(self.b, initial if index == 0 and self.step == 1 else nothing)
        return sums

    def total(self, sums: Sequence[Value], initial: Value) -> Value:
        """The sums as i32 lanes; `initial` is what they started at."""
        total, first = self.b.const(0, WORDS), 0
        for dot, shift in zip(self.dots, self.shifts, strict=True):
            part = dot.total(self.b, sums[first : first + dot.accumulators])
            first += dot.accumulators
            total = total + (part << shift) if shift else part
        return total if self.step == 1 else total * self.step + initial

    def activations(self, words: Sequence[Sequence[Value]]) -> list[list[Activation]]:
        """For each piece, 4 columns' digits after another, made ready."""
        return [[dot.activation(self.b, word) for word in words] for dot in self.dots]

    def add(self, sums: Sequence[Value], word: Value, xs: Sequence[Activation]) -> list[Value]:
        """Add a vector of levels, one plane of 4 columns."""
        return self.dots[0].step(self.b, sums, word, xs)

    def add_step(
        self,
        sums: Sequence[Value],
        reader: CodeReader,
        place: tuple[Value, int],
        xs: Sequence[Sequence[Activation]],
    ) -> list[Value]:
        """Add the pieces of a step of columns. place: the byte of the step, and the sub-tile."""
        at, subtile = place
        added: list[Value] = []
        for index, dot in enumerate(self.dots):
            mine = sums[len(added) : len(added) + dot.accumulators]
            for vector in range(reader.layout.step // (4 * dot.planes)):
                word = reader.word(at, index, vector, subtile)
                columns = xs[index][vector * dot.planes : (vector + 1) * dot.planes]
                mine = dot.step(self.b, mine, word, columns)
            added += mine
        return added
