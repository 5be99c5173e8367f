"""Integer dot products of packed codes, whatever pieces they are in and whatever they stand for.

Codes of one piece that are their own levels are multiplied where they lie, all planes of a vector.
Others become levels first, a byte each: cutting them out costs no more than multiplying their
pieces one by one and takes a fraction of the registers.
"""

from collections.abc import Sequence

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.elements import WORDS
from nybble.backends.cpu.kernels.matmul.intdot import Activation, int_dot
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec

LEVEL_BITS = 8


class CodesDot:
    """Sums of `step * level * activation` for some columns of 16 rows.

    width: of codes that are multiplied where they lie, or LEVEL_BITS for levels in bytes.
    """

    def __init__(self, b: KernelBuilder, spec: MatmulSpec, width: int = LEVEL_BITS):
        self.b = b
        self.step = spec.integers.step
        self.dot = int_dot(spec.isa, width, spec.digits)

    @property
    def accumulators(self) -> int:
        """How many vectors `start` makes."""
        return self.dot.accumulators

    def start(self, initial: Value) -> list[Value]:
        """Accumulators whose total is `initial` (i32 lanes)."""
        return self.dot.start(self.b, initial if self.step == 1 else self.b.const(0, WORDS))

    def total(self, sums: Sequence[Value], initial: Value) -> Value:
        """The sums as i32 lanes; `initial` is what they started at."""
        total = self.dot.total(self.b, sums)
        return total if self.step == 1 else total * self.step + initial

    def activation(self, words: Sequence[Value]) -> Activation:
        """The digits of 4 columns, made ready."""
        return self.dot.activation(self.b, words)

    def add(self, sums: Sequence[Value], word: Value, xs: Sequence[Activation]) -> list[Value]:
        """Add a vector: an activation for each of its planes."""
        return self.dot.step(self.b, sums, word, xs)


def in_place(spec: MatmulSpec, widths: tuple[int, ...]) -> bool:
    """Whether codes are multiplied where they lie."""
    return len(widths) == 1 and not spec.integers.levels
