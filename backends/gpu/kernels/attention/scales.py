"""Scales and minima of a quantized cache, brought into shared memory a step ahead.

A warp needs them in an order that is not that of memory, at once and a step long; registers are
short, so they wait in shared memory, in stages of each warp's own:

    keys: scales, minima [head_dim]    values: scales, minima [groups of features, keys of a step]

Lines of several groups lie a few bytes further apart, and of long runs of features that lanes have
of keys every other two are exchanged within, so that lanes read them without conflicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import i32, i64

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.attention.fragments import (
    HIGH_TWICE,
    LOW_TWICE,
    RowPart,
    gather,
)
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec
from nybble.backends.gpu.kernels.instructions import halves_to_floats

_PART = 16
"""Bytes that a lane copies at once."""
_FOUR = 32
"""Bytes of the longest runs that four lanes side by side read in different banks."""


@dataclass(frozen=True)
class Lines:
    """Scales, or minima, of a step. count: of the lines; size: bytes of one; stride: bytes from one
    to the next in memory; each: bytes from one to the next in shared memory; step: bytes from a
    step to the next in memory; exchanged: whether parts are neighbours' in every other two lines.
    """

    count: int
    size: int
    stride: int
    each: int
    step: int
    exchanged: bool = False

    @property
    def parts(self) -> int:
        """Lanes that copy them."""
        return self.count * self.size // _PART


def key_lines(spec: DecodeSpec) -> Lines:
    """Of the keys: a number for each feature; a line is what a lane has in a row."""
    whole, run = spec.head_dim * 2, key_run(spec)
    return Lines(whole // run, run, run, run, whole, exchanged=run > _FOUR)


def key_run(spec: DecodeSpec) -> int:
    """Bytes of the numbers of the features that a lane has of a key in a row."""
    return RowPart(spec.head_dim, spec.bits, 4).run * 2


def value_lines(spec: DecodeSpec) -> Lines:
    """Of the values: a number for each key of the step, in each group of features."""
    size, count = spec.step * 2, spec.value_groups
    return Lines(count, size, spec.context * 2, size + (_PART if count > 1 else 0), size)


def stage_bytes(spec: DecodeSpec) -> int:
    """Of what a step needs."""
    if not spec.quantized:
        return 0
    return 2 * sum(one.count * one.each for one in (key_lines(spec), value_lines(spec)))


def exchange(line: Value) -> Value:
    """What the places of parts in a line that is exchanged differ by."""
    return (line.shr(1) & 1) * _PART


@dataclass(frozen=True)
class _Copy:
    """What a lane copies: from where in step 0, to where in a stage, and whether it does."""

    source: Value
    target: Value
    mine: Value
    step: int


class Scales:
    """Copies and reads them; room: shared memory of this warp, for all its stages."""

    def __init__(
        self, b: GpuBuilder, spec: DecodeSpec, at: dict[str, Value], head: Value, room: Value
    ) -> None:
        self.b, self.spec, self.room = b, spec, room
        self.key_lines, self.lines = key_lines(spec), value_lines(spec)
        self.values_start = 2 * self.key_lines.count * self.key_lines.each
        wide = b.sext(head, i64)
        keys = wide * (spec.context // spec.key_group * spec.head_dim * 2)
        values = wide * (spec.value_groups * spec.context * 2)
        self._copies = [
            self._copy_of([b.offset(at[one], start) for one in names], lines, first)
            for names, start, lines, first in (
                (("k_scales", "k_minima"), keys, self.key_lines, 0),
                (("v_scales", "v_minima"), values, self.lines, self.values_start),
            )
        ]

    def _copy_of(self, bases: Sequence[Value], lines: Lines, first: int) -> _Copy:
        """The scales and then the minima that begin `first` bytes from the stage's beginning."""
        b, lane, parts = self.b, self.b.thread() % 32, lines.parts
        base, part = b.select(lane < parts, *bases), lane % parts
        half = b.select(lane < parts, b.const(first, i32), first + lines.count * lines.each)
        if lines.count == 1:
            return _Copy(
                b.offset(base, part * _PART), half + part * _PART, lane < 2 * parts, lines.step
            )
        each = lines.size // _PART
        line, within = part // each, part % each * _PART
        source = b.offset(base, line * lines.stride + within)
        if lines.exchanged:
            within = within ^ exchange(line)
        return _Copy(source, half + line * lines.each + within, lane < 2 * parts, lines.step)

    def copy(self, step: Value, stage: Value) -> None:
        """Ask for those of a step, into a stage."""
        b = self.b
        start = stage * stage_bytes(self.spec)
        for one in self._copies:
            with b.if_(one.mine):
                into = b.offset(self.room, start + one.target)
                b.copy_async(into, b.offset(one.source, step * one.step), 0)

    def of_keys(
        self, stage: Value, quad: Value, elements: Sequence[tuple[int, int]]
    ) -> tuple[list[Value], list[Value]]:
        """Scales and minima of pairs of elements, counted from the first of lane `quad` of four."""
        b, lines = self.b, self.key_lines
        row = b.offset(self.room, stage * stage_bytes(self.spec) + quad * lines.each)
        side = exchange(quad) if lines.exchanged else b.const(0, i32)

        def four(row: Value, at: int) -> list[Value]:
            moved = b.offset(row, side * -1 if at & _PART else side)
            return b.lanes_of(b.load(b.offset(moved, at), vec(4, i32)))

        scales, minima = (
            gather(one, elements, four) for one in (row, b.offset(row, lines.count * lines.each))
        )
        return scales, minima

    def of_values(self, stage: Value, key: Value, more: int) -> tuple[list[Value], list[Value]]:
        """Scales and minima, f32, of keys `key + more` (even) and the one after."""
        b = self.b
        row = b.offset(self.room, stage * stage_bytes(self.spec) + key * 2)
        at = self.values_start + 2 * more
        words = [b.load(b.offset(row, at + other), i32) for other in (0, self.lines.each)]
        scales, minima = (halves_to_floats(b, word) for word in words)
        return scales, minima

    def of_groups(
        self, stage: Value, group: Value, key: Value, more: int
    ) -> list[tuple[Value, Value]]:
        """Scale and minimum of a group of features, each as a pair of equal f16, of keys
        `key + more` (even) and the one after."""
        b, lines = self.b, self.lines
        start = stage * stage_bytes(self.spec) + group * lines.each + key * 2
        row, at = b.offset(self.room, start), self.values_start + 2 * more
        words = [b.load(b.offset(row, at + o), i32) for o in (0, lines.count * lines.each)]
        return [
            (b.permute(words[0], words[0], one), b.permute(words[1], words[1], one))
            for one in (LOW_TWICE, HIGH_TWICE)
        ]
