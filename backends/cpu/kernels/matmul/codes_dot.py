"""Integer dot products of packed codes, whatever pieces they are in and whatever they stand for.

Codes of one piece that are their own levels are multiplied where they lie, all planes of a vector.
Others become levels first, a byte each: cutting them out costs no more than multiplying their
pieces one by one and takes a fraction of the registers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.kernels.matmul.elements import WORDS
from nybble.backends.cpu.kernels.matmul.intdot import Activation, IntDot, int_dot
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.tile_layout import LANES

LEVEL_BITS = 8


@dataclass
class Run:
    """Sums that grow: what was carried so far, a run of words since, and room for more of them."""

    carried: Sequence[Value]
    open: Sequence[Value]
    room: int


class CodesDot:
    """Sums of `step * level * activation` for some columns of 16 rows.

    dot: for codes where they lie (`in_place_dot`) or for levels in bytes (`level_dot`).
    """

    def __init__(self, b: KernelBuilder, spec: MatmulSpec, dot: IntDot):
        self.b = b
        self.step = spec.integers.step
        self.dot = dot
        self.factor = self.step * dot.offset - spec.integers.zero_point

    @property
    def carried(self) -> int:
        """How many vectors `start` makes."""
        return self.dot.carried

    def start(self, initial: Value) -> list[Value]:
        """Sums whose total is `initial` (i32 lanes): `factor` times the activations' sum."""
        return self.dot.start(self.b, initial if self.step == 1 else self.b.const(0, WORDS))

    def total(self, sums: Sequence[Value], initial: Value) -> Value:
        """The sums as i32 lanes; `initial` is what they started at."""
        total = self.dot.total(self.b, sums)
        return total if self.step == 1 else total * self.step + initial

    def activation(self, words: Sequence[Value]) -> Activation:
        """The digits (i32) of 4 columns, made ready."""
        return self.dot.prepare(self.b, [self.b.broadcast(word, LANES) for word in words])

    def open(self, sums: Sequence[Value]) -> Run:
        """Sums to which words are added."""
        return Run(sums, self.dot.open(sums), self.dot.run)

    def add(self, run: Run, word: Value, xs: Iterable[Activation]) -> None:
        """Add a vector: an activation for each of its planes."""
        if run.room == 0:
            sums = self.close(run)
            run.carried, run.open, run.room = sums, self.dot.open(sums), self.dot.run
        run.open = self.dot.step(self.b, run.open, word, xs)
        run.room -= 1

    def close(self, run: Run) -> Sequence[Value]:
        """The sums with all that was added."""
        return self.dot.close(self.b, run.carried, run.open)


def in_place(spec: MatmulSpec, widths: tuple[int, ...]) -> bool:
    """Whether codes are multiplied where they lie."""
    assert isinstance(spec.weight, Codes)
    return len(widths) == 1 and not spec.integers.levels and not spec.weight.keep


def in_place_dot(spec: MatmulSpec, width: int) -> IntDot:
    """The form for codes of one piece."""
    assert isinstance(spec.weight, Codes)
    largest = 2**spec.weight.bits - 1 if width == LEVEL_BITS else 0
    return int_dot(spec.isa, width, spec.digits, largest)


def level_dot(spec: MatmulSpec) -> IntDot:
    """The form for levels, one in a byte."""
    assert isinstance(spec.weight, Codes)
    integers = spec.integers
    largest = max(integers.levels + integers.specials, default=2**spec.weight.bits - 1)
    return int_dot(spec.isa, LEVEL_BITS, spec.digits, largest)
