"""Integer dot products of packed codes with activations of 8-bit digits, per instruction set.

A word is 16 rows of one packed vector: i32 lanes, each with 4 columns' codes in every plane. An
activation word is one digit of 4 columns, int8; an activation of two digits is 256 * the first +
the second. All forms are exact modulo 2^32, so they agree bit for bit.

How a kernel adds up the words of a group:

    sums = dot.start(b, initial)                    # carried from one run to the next
    while words are left:
        run = dot.open(sums)
        for at most dot.run words:
            run = dot.step(b, run, word, xs)        # xs: an activation for each plane
        sums = dot.close(b, sums, run)
    total = dot.total(b, sums) + dot.offset * (sum of the activations)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.dialects.builtin import i16

from nybble.backends.building.values import lanes
from nybble.backends.cpu.isa import FourWay, Isa, Pairwise
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i8, i32, vec
from nybble.backends.cpu.tile_layout import LANES

WORDS = vec(LANES, i32)
HALVES = vec(2 * LANES, i16)
BYTES = vec(4 * LANES, i8)
BITS = 32 * LANES
Activation: TypeAlias = Sequence[Value]
DIGIT_BITS = 8
ANY_NUMBER = 1 << 20
LARGEST_DIGIT = 128
"""The largest magnitude of a digit."""


@dataclass(frozen=True)
class IntDot(ABC):
    """Sums of code * activation for codes 0 .. `largest` in fields of `width` bits.

    digits: words of an activation, the most significant first.
    """

    width: int
    digits: int
    largest: int

    @property
    def planes(self) -> int:
        """Codes in a byte."""
        return 8 // self.width

    @property
    def run(self) -> int:
        """How many words may be added between `open` and `close`."""
        return ANY_NUMBER

    @property
    def offset(self) -> int:
        """What it subtracts from every code."""
        return 0

    @property
    def prepared(self) -> int:
        """Words that `prepare` makes of an activation's digits."""
        return self.digits

    @property
    def prepares(self) -> bool:
        """Whether `prepare` changes anything."""
        return False

    @property
    @abstractmethod
    def operations(self) -> float:
        """Instructions on vectors of 512 bits that a `step` takes: see `cost`."""

    @property
    @abstractmethod
    def accumulators(self) -> int:
        """How many vectors a run keeps."""

    @property
    def carried(self) -> int:
        """How many sums `start` makes."""
        return self.accumulators

    def start(self, b: KernelBuilder, initial: Value) -> list[Value]:
        """Sums whose total is `initial` (i32 lanes)."""
        return [*[b.const(0, WORDS)] * (self.carried - 1), initial]

    def prepare(self, b: KernelBuilder, words: Sequence[Value]) -> list[Value]:
        """The digits of 4 columns as words (i32 lanes, any number of them) that `step` takes."""
        return [*words]

    def open(self, sums: Sequence[Value]) -> Sequence[Value]:
        """The vectors of a run that begins."""
        return sums

    @abstractmethod
    def step(
        self, b: KernelBuilder, run: Sequence[Value], word: Value, xs: Iterable[Activation]
    ) -> list[Value]:
        """Add one word (i32 lanes) times one prepared activation for each plane."""

    def close(
        self, b: KernelBuilder, sums: Sequence[Value], run: Sequence[Value]
    ) -> Sequence[Value]:
        """The sums with a run."""
        return run

    def total(self, b: KernelBuilder, sums: Sequence[Value]) -> Value:
        """The sums as i32 lanes."""
        return _number(sums)


@dataclass(frozen=True)
class FourWayDot(IntDot):
    """`vpdpbusd`, `sdot`: codes are masked where they lie, each plane's sum is shifted once.

    Sums are [plane][digit], the last of plane 0 starting at the initial value. Signed bytes hold
    codes above 127 less 128, and the top plane of a byte shifted down.
    """

    form: FourWay

    @property
    def operations(self) -> float:
        """See IntDot."""
        return self.planes * (self.digits + (self.planes > 1))

    @property
    def accumulators(self) -> int:
        """See IntDot."""
        return self.planes * self.digits

    @property
    def offset(self) -> int:
        """See IntDot."""
        return 128 if self.form.signed and self.largest > 127 else 0

    def start(self, b: KernelBuilder, initial: Value) -> list[Value]:
        """See IntDot."""
        sums = [b.const(0, WORDS)] * self.accumulators
        sums[self.digits - 1] = initial
        return sums

    def step(
        self, b: KernelBuilder, run: Sequence[Value], word: Value, xs: Iterable[Activation]
    ) -> list[Value]:
        """See IntDot."""
        added: list[Value] = []
        for plane, x in enumerate(xs):
            codes = self._codes(b, b.bitcast(word, BYTES), plane)
            for digit, value in enumerate(x):
                operands = (run[plane * self.digits + digit], codes, b.bitcast(value, BYTES))
                parts = BITS // self.form.bits
                added.append(b.intrinsic_by_parts(self.form.intrinsic, parts, operands, WORDS))
        return added

    def _codes(self, b: KernelBuilder, codes: Value, plane: int) -> Value:
        if self.planes == 1:
            return codes ^ -128 if self.offset else codes
        if self._shifted(plane):
            return codes.shr(plane * self.width)
        mask = ((1 << self.width) - 1) << (plane * self.width)
        return codes & (mask - 256 if mask > 127 else mask)

    def _shifted(self, plane: int) -> bool:
        return self.form.signed and plane == self.planes - 1

    def total(self, b: KernelBuilder, sums: Sequence[Value]) -> Value:
        """See IntDot."""
        digits: list[Value] = []
        for digit in range(self.digits):
            first, *others = sums[digit :: self.digits]
            for plane, one in enumerate(others, 1):
                place = 0 if self._shifted(plane) else plane * self.width
                first = first + (one >> place if place else one)
            digits.append(first)
        return _number(digits)


@dataclass(frozen=True)
class BytePairsDot(IntDot):
    """`vpmaddubsw` for codes of up to 7 bits: a run's sums stay in 16 bits.

    A product of two pairs is at most 2 * 128 * largest, below 2^15, so nothing saturates within
    `run` words. Planes that lie in the same bits of a half byte add up in one vector; those at
    `place` count 2^place times, which the end of a run corrects.
    """

    form: Pairwise

    @property
    def operations(self) -> float:
        """See IntDot."""
        shifts = 1 if self.planes > 1 else 0
        masks = self.planes if self.planes > 1 else 0
        return shifts + masks + 2 * self.planes * self.digits

    @property
    def _places(self) -> Sequence[int]:
        """Bits of a half byte at which codes start."""
        return range(0, 4, self.width)

    @property
    def accumulators(self) -> int:
        """See IntDot."""
        return len(self._places) * self.digits

    @property
    def carried(self) -> int:
        """See IntDot."""
        return self.digits

    @property
    def run(self) -> int:
        """See IntDot."""
        steepest = 2 * LARGEST_DIGIT * (self.largest << self._places[-1])
        products = (2**15 - 1) // steepest
        return products // (self.planes // len(self._places))

    def open(self, sums: Sequence[Value]) -> Sequence[Value]:
        """See IntDot: nothing yet, the first products begin the sums."""
        return []

    def step(
        self, b: KernelBuilder, run: Sequence[Value], word: Value, xs: Iterable[Activation]
    ) -> list[Value]:
        """See IntDot."""
        added = [*run]
        halves = [word, word.shr(4)] if self.planes > 1 else [word]
        for plane, x in enumerate(xs):
            half, place = divmod(plane * self.width, 4)
            codes = b.bitcast(halves[half], BYTES)
            if self.planes > 1:
                codes = codes & ((1 << self.width) - 1) << place
            for digit, value in enumerate(x):
                product = self._product(b, codes, b.bitcast(value, BYTES))
                at = place // self.width * self.digits + digit
                if at < len(added):
                    added[at] = added[at] + product
                else:
                    added.append(product)
        return added

    def _product(self, b: KernelBuilder, codes: Value, x: Value) -> Value:
        parts = BITS // self.form.bits
        return b.intrinsic_by_parts(self.form.pairs_of_bytes, parts, (codes, x), HALVES)

    def close(
        self, b: KernelBuilder, sums: Sequence[Value], run: Sequence[Value]
    ) -> Sequence[Value]:
        """See IntDot."""
        return [
            total + self._widened(b, run[digit :: self.digits]) for digit, total in enumerate(sums)
        ]

    def _widened(self, b: KernelBuilder, run: Sequence[Value]) -> Value:
        """The sums of a digit at all places, as i32 lanes."""
        top = self._places[-1]
        wide: Value | None = None
        for place, one in zip(self._places, run, strict=True):
            operands = (one, b.const(1 << top - place, HALVES))
            parts = BITS // self.form.bits
            part = b.intrinsic_by_parts(self.form.pairs_of_words, parts, operands, WORDS)
            wide = part if wide is None else wide + part
        assert wide is not None
        return wide >> top if top else wide


@dataclass(frozen=True)
class WordPairsDot(IntDot):
    """`vpmaddwd` for codes of any width: codes and activations as 16 bits, both digits in one.

    |256 h + l| is at most 128 * 255, so an activation fits, and a product of pairs fits 32 bits.
    Words are taken apart into even and odd columns.
    """

    form: Pairwise

    @property
    def operations(self) -> float:
        """See IntDot: with many tokens most of the cutting out is shared."""
        return self.planes * 5 - 1

    @property
    def accumulators(self) -> int:
        """See IntDot."""
        return 1

    @property
    def prepared(self) -> int:
        """See IntDot: even columns, odd columns."""
        return 2

    @property
    def prepares(self) -> bool:
        """See IntDot."""
        return True

    def prepare(self, b: KernelBuilder, words: Sequence[Value]) -> list[Value]:
        """See IntDot."""
        halves = vec(2 * lanes(words[0].type), i16)
        digits = [b.bitcast(word, halves) for word in words]
        even, odd = (digits[-1] << 8) >> 8, digits[-1] >> 8
        if self.digits == 2:
            even, odd = (digits[0] << 8) + even, (digits[0] & -256) + odd
        return [b.bitcast(value, words[0].type) for value in (even, odd)]

    def step(
        self, b: KernelBuilder, run: Sequence[Value], word: Value, xs: Iterable[Activation]
    ) -> list[Value]:
        """See IntDot."""
        total, codes = run[0], b.bitcast(word, HALVES)
        parts = BITS // self.form.bits
        for plane, x in enumerate(xs):
            for odd, value in enumerate(x):
                shift = 8 * odd + plane * self.width
                part = codes.shr(shift) if shift else codes
                if shift + self.width < 16:
                    part = part & (1 << self.width) - 1
                operands = (part, b.bitcast(value, HALVES))
                total = total + b.intrinsic_by_parts(
                    self.form.pairs_of_words, parts, operands, WORDS
                )
        return [total]

    def total(self, b: KernelBuilder, sums: Sequence[Value]) -> Value:
        """See IntDot."""
        return sums[0]


@dataclass(frozen=True)
class GenericDot(IntDot):
    """Upstream operations alone: each column's codes are shifted out and multiplied as i32."""

    @property
    def operations(self) -> float:
        """See IntDot."""
        return 4 * self.planes * 5  # a shift, a mask, a product of two micro-operations, a sum

    @property
    def accumulators(self) -> int:
        """See IntDot."""
        return 1

    @property
    def prepared(self) -> int:
        """See IntDot: one for each column."""
        return 4

    @property
    def prepares(self) -> bool:
        """See IntDot."""
        return True

    def prepare(self, b: KernelBuilder, words: Sequence[Value]) -> list[Value]:
        """See IntDot."""
        return [_number([(word << 24 - 8 * j) >> 24 for word in words]) for j in range(4)]

    def step(
        self, b: KernelBuilder, run: Sequence[Value], word: Value, xs: Iterable[Activation]
    ) -> list[Value]:
        """See IntDot."""
        total = run[0]
        for plane, x in enumerate(xs):
            for j, column in enumerate(x):
                shift = 8 * j + plane * self.width
                codes = word.shr(shift) if shift else word
                total = total + (codes & ((1 << self.width) - 1)) * column
        return [total]

    def total(self, b: KernelBuilder, sums: Sequence[Value]) -> Value:
        """See IntDot."""
        return sums[0]


def _number(digits: Sequence[Value]) -> Value:
    """The number of some digits, the most significant first."""
    number, *others = digits
    for digit in others:
        number = (number << DIGIT_BITS) + digit
    return number


def int_dot(isa: Isa, width: int, digits: int, largest: int = 0, run: int = 1) -> IntDot:
    """The form for an instruction set, whose runs take at least `run` words.

    largest: the largest code, if not all of `width` bits occur.
    """
    largest = largest or 2**width - 1
    form = isa.int_dot
    if isinstance(form, FourWay):
        return FourWayDot(width, digits, largest, form)
    if isinstance(form, Pairwise):
        narrow = BytePairsDot(width, digits, largest, form)
        return narrow if narrow.run >= run else WordPairsDot(width, digits, largest, form)
    return GenericDot(width, digits, largest)
