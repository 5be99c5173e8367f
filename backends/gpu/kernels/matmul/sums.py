"""Sums of one tile of rows that several blocks of threads have: added up by the last to arrive.

Each block leaves its sums in memory and counts itself; the one that finds all others counted reads
all sums, in the order of columns. Nobody waits, and results are the same in every run.
"""

from collections.abc import Callable, Sequence

from xdsl.dialects.builtin import f32, i1, i32, i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.kernels.matmul.spec import FLOAT_BYTES, FlatSpec
from nybble.backends.gpu.packing.stream import LANES, LOAD

Sums = list[list[list[Value]]]
"""By fragment and token tile: the four sums of a lane."""


class Reduction:
    """factor: what results are multiplied by. partials, counters: the parameters of these names."""

    def __init__(
        self, b: GpuBuilder, spec: FlatSpec, factor: float, partials: Value, counters: Value
    ):
        self.b = b
        self.spec = spec
        self.factor = factor
        self.partials = partials
        self.counters = counters
        self.lane = b.thread() & 31
        self.warp = b.thread().shr(5)

    def start(self, block: Value) -> Value:
        """The first step of a block of threads."""
        b, spec = self.b, self.spec
        return b.binary("udiv", block * spec.work, b.const(spec.blocks, i32))

    def owner(self, step: Value) -> Value:
        """The block of threads that has a step."""
        b, spec = self.b, self.spec
        return b.binary("udiv", (step + 1) * spec.blocks - 1, b.const(spec.work, i32))

    def finish(self, job: Value, sums: Sums, write: Callable[[Sums], None]) -> None:
        """Write the sums of this warp's tile of a job, once all of its columns are in them."""
        b, steps = self.b, self.spec.layout.steps
        first, last = self.owner(job * steps), self.owner(job * steps + (steps - 1))
        own = [value for row in sums for quad in row for value in quad]
        counter = b.offset(self.counters, (job * self.spec.tuning.warps + self.warp) * 4)

        def shared() -> list[Value]:
            self.leave(job, own)
            b.sync_warp()
            is_last = b.count_arrival(counter, self.lane).eq(last - first)
            b.sync_warp()
            nothing = b.const(0.0, f32)
            every = b.choose(
                is_last, lambda: self.collected(job, first, last), lambda: [nothing] * len(own)
            )
            with b.if_(is_last & self.lane.eq(0)):
                b.store(b.const(0, i32), counter)
            return [is_last, *every]

        alone = b.const(1, i1)
        writes, *every = b.choose(first.eq(last), lambda: [alone, *own], shared)
        with b.if_(writes):
            write(self.nested(every))

    def nested(self, flat: Sequence[Value]) -> Sums:
        """Sums in a row, by fragment and token tile."""
        tiles = self.spec.token_tiles
        quads = [list(flat[i : i + 4]) for i in range(0, len(flat), 4)]
        return [quads[i : i + tiles] for i in range(0, len(quads), tiles)]

    def place(self, job: Value, owner: Value) -> Value:
        """Where a block of threads leaves this warp's sums of a job.

        A block shares at most two jobs: the one it begins with and the one it ends with.
        """
        b, spec = self.b, self.spec
        began_before = self.start(owner) < job * spec.layout.steps
        segment = owner * 2 + b.select(began_before, b.const(1, i32), b.const(0, i32))
        slot = segment * spec.tuning.warps + self.warp
        at = b.zext(slot, i64) * spec.partial_bytes + b.zext(self.lane * LOAD, i64)
        return b.offset(self.partials, at)

    def leave(self, job: Value, sums: Sequence[Value]) -> None:
        """Write this block's sums for others."""
        b = self.b
        place = self.place(job, b.block_id())
        text = "st.global.v4.f32 [$0+{}], {{$1, $2, $3, $4}};"
        for i in range(0, len(sums), 4):
            at = i // 4 * LANES * LOAD
            b.ptx(text.format(at), (), [place, *sums[i : i + 4]], effects=True)

    def collected(self, job: Value, first: Value, last: Value) -> list[Value]:
        """The sums that all blocks left of this warp's tile, in order."""
        b, spec = self.b, self.spec
        fragments, tiles = spec.layout.placement.fragments, spec.token_tiles
        zeros = [b.const(0.0, f32)] * (4 * fragments * tiles)
        with b.for_(first, last + 1, 1, zeros) as owners:
            place = self.place(job, owners.iv)
            found: list[Value] = []
            for i in range(fragments * tiles):
                words = b.load_words(place, i * LANES * LOAD, 4, "cg")
                found += [b.reinterpret(word, f32) for word in words]
            owners.yield_(*(a + c for a, c in zip(owners.args, found, strict=True)))
        return owners.results

    def write(
        self, y: Value, token: Value, row: Value, value: Value, conditions: Sequence[Value]
    ) -> None:
        """Write one result, if all conditions hold."""
        b, spec = self.b, self.spec
        place = b.zext(token, i64) * spec.layout.rows + b.zext(row, i64)
        target = b.offset(y, place * FLOAT_BYTES[spec.output])
        scaled = value * self.factor if self.factor != 1.0 else value
        result = b.to_float(scaled, ELEMENTS[spec.output])
        if not conditions:
            b.store(result, target)
            return
        holds = conditions[0]
        for one in conditions[1:]:
            holds = holds & one
        with b.if_(holds):
            b.store(result, target)
