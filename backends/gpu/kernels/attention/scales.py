"""Scales and minima of a quantized cache, brought into shared memory a step ahead.

A warp needs them in an order that is not that of memory, at once and a step long; registers are
short, so they wait in shared memory, in stages of each warp's own:

    keys: scales, minima [head_dim]    values: scales, minima [keys of a step]
"""

from collections.abc import Sequence

from xdsl.dialects.builtin import i32, i64

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.attention.fragments import gather
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec
from nybble.backends.gpu.kernels.instructions import halves_to_floats

_PART = 16
"""Bytes that a lane copies at once."""


def stage_bytes(spec: DecodeSpec) -> int:
    """Of what a step needs."""
    return 2 * (2 * spec.head_dim + 2 * spec.step) if spec.quantized else 0


class Scales:
    """Copies and reads them; room: shared memory of this warp, for all its stages."""

    def __init__(
        self, b: GpuBuilder, spec: DecodeSpec, at: dict[str, Value], head: Value, room: Value
    ) -> None:
        lane = b.thread() % 32
        self.b, self.spec, self.room = b, spec, room
        wide = b.sext(head, i64)
        keys = wide * (spec.context // spec.key_group * spec.head_dim * 2)
        values = wide * (spec.context * 2)
        self._kinds = [
            self._kind(lane, [b.offset(at[one], start) for one in names], size)
            for names, start, size in (
                (("k_scales", "k_minima"), keys, spec.head_dim * 2),
                (("v_scales", "v_minima"), values, spec.step * 2),
            )
        ]

    def _kind(self, lane: Value, bases: Sequence[Value], size: int) -> tuple[Value, Value, int]:
        """Where this lane copies from in step 0, whether it copies at all, bytes of a step."""
        b, parts = self.b, size // _PART
        base = b.select(lane < parts, *bases)
        return b.offset(base, lane % parts * _PART), lane < 2 * parts, size

    def copy(self, step: Value, stage: Value) -> None:
        """Ask for those of a step, into a stage."""
        b, spec = self.b, self.spec
        target = b.offset(self.room, stage * stage_bytes(spec) + b.thread() % 32 * _PART)
        for i, (source, mine, size) in enumerate(self._kinds):
            with b.if_(mine):
                into = b.offset(target, i * 4 * spec.head_dim)
                b.copy_async(into, b.offset(source, step * size), 0)

    def of_keys(
        self, stage: Value, first: Value, elements: Sequence[tuple[int, int]]
    ) -> tuple[list[Value], list[Value]]:
        """Scales and minima of pairs of elements, the first one of which is number `first`."""
        b = self.b
        row = b.offset(self.room, stage * stage_bytes(self.spec) + first * 2)
        rows = row, b.offset(row, 2 * self.spec.head_dim)
        scales, minima = (gather(one, elements, self._four) for one in rows)
        return scales, minima

    def _four(self, row: Value, at: int) -> list[Value]:
        return self.b.lanes_of(self.b.load(self.b.offset(row, at), vec(4, i32)))

    def of_values(self, stage: Value, key: Value, more: int) -> tuple[list[Value], list[Value]]:
        """Scales and minima, f32, of keys `key + more` (even) and the one after."""
        b = self.b
        row = b.offset(self.room, stage * stage_bytes(self.spec) + key * 2)
        at = 4 * self.spec.head_dim + 2 * more
        words = [b.load(b.offset(row, at + other), i32) for other in (0, 2 * self.spec.step)]
        scales, minima = (halves_to_floats(b, word) for word in words)
        return scales, minima
