"""Sums of one tile of rows that several blocks of threads have: added up by the last to arrive.

Each block leaves its sums in memory and counts itself; the one that finds all others counted reads
all sums, in the order of columns. Nobody waits, and results are the same in every run.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

from xdsl.dialects.builtin import f32, i1, i32, i64

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.matmul.spec import QUAD_BYTES, TOKEN_TILE, StreamSpec
from nybble.backends.gpu.packing.stream import LOAD

AT_ONCE = 16
"""Loads of sums that are under way at once, as many as registers have room for."""
Sums = list[list[list[Value]]]
"""By fragment and token tile: the four sums of a lane."""
Write = Callable[[Sequence[int], list[Value]], None]
"""Writes the sums of some quads."""


class Reduction:
    """partials, counters: the parameters of these names."""

    def __init__(self, b: GpuBuilder, spec: StreamSpec, partials: Value, counters: Value):
        self.b = b
        self.spec = spec
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

    def exchanged(self, sums: list[Value]) -> list[Value]:
        """This warp's share of the sums of all warps with the same rows, added up in order."""
        b, spec = self.b, self.spec
        split, own = spec.tuning.split, spec.own_quads
        if split == 1:
            return sums
        every = b.offset(b.shared(), spec.ring_bytes)
        size = spec.quads * QUAD_BYTES
        mine = b.offset(every, self.warp * size + self.lane * LOAD)
        b.barrier()
        for i in range(spec.quads):
            quad = b.emit_from(sums[4 * i : 4 * i + 4])
            b.store(quad, b.offset(mine, i * QUAD_BYTES))
        b.barrier()
        part = self.warp & (split - 1)
        rows = (self.warp - part) * size + self.lane * LOAD
        share = b.offset(every, rows + b.min(part * own, spec.quads - own) * QUAD_BYTES)
        added = [b.const(0.0, f32)] * (4 * own)
        for other in range(split):
            for i in range(own):
                quad = b.load(b.offset(share, other * size + i * QUAD_BYTES), vec(4, f32))
                for e, value in enumerate(b.lanes_of(quad)):
                    added[4 * i + e] = added[4 * i + e] + value
        return added

    def finish(self, job: Value, own: list[Value], write: Write) -> None:
        """Write the sums of this warp's tile of a job, once all of its columns are in them."""
        b, steps = self.b, self.spec.steps
        first, last = self.owner(job * steps), self.owner(job * steps + (steps - 1))
        counter = b.offset(self.counters, (job * self.spec.tuning.warps + self.warp) * 4)
        yes, no = b.const(1, i1), b.const(0, i1)

        def handed_over() -> list[Value]:
            self.leave(job, own)
            b.sync_warp()
            is_last = b.count_arrival(counter, self.lane).eq(last - first)
            b.sync_warp()
            return [is_last, is_last]

        writes, collects = b.choose(first.eq(last), lambda: [yes, no], handed_over)
        for quads in self.spec.parts:
            every = b.choose(
                collects,
                partial(self.collected, job, first, last, quads),
                partial(_picked, own, quads),
            )
            with b.if_(writes):
                write(quads, every)
        with b.if_(collects & self.lane.eq(0)):
            b.store(b.const(0, i32), counter)

    def nested(self, flat: Sequence[Value]) -> Sums:
        """Sums in a row, by fragment and token tile."""
        tiles = self.spec.token_tiles
        quads = [list(flat[i : i + 4]) for i in range(0, len(flat), 4)]
        return [quads[i : i + tiles] for i in range(0, len(quads), tiles)]

    def place(self, owner: Value, segment: Value) -> Value:
        """Where a block of threads leaves this warp's sums of its first or its last job.

        Lanes without tokens share the place of one that has some.
        """
        b, spec = self.b, self.spec
        lane = self.lane
        if self.has_tokens() is not None:
            pairs = -(-spec.tokens // 2)
            lane = self.lane.shr(2) * pairs + b.min(self.lane & 3, pairs - 1)
        slot = (owner * 2 + segment) * spec.tuning.warps + self.warp
        at = b.zext(slot, i64) * spec.partial_bytes + b.zext(lane * LOAD, i64)
        return b.offset(self.partials, at)

    def segment(self, job: Value, owner: Value) -> Value:
        """1 if a job is the last of several of a block of threads, else 0.

        A block shares at most two jobs: the one it begins with and the one it ends with. Only the
        first owner of a job can have begun before it.
        """
        b = self.b
        began_before = self.start(owner) < job * self.spec.steps
        return b.select(began_before, b.const(1, i32), b.const(0, i32))

    def has_tokens(self) -> Value | None:
        """Whether any of this lane's sums is of a token; None where all lanes' are."""
        spec = self.spec
        few = spec.token_tiles == 1 and spec.tokens <= TOKEN_TILE - 2
        return (self.lane & 3) * 2 < spec.tokens if few else None

    def leave(self, job: Value, sums: Sequence[Value]) -> None:
        """Write this block's sums for others."""
        b = self.b
        place = self.place(b.block_id(), self.segment(job, b.block_id()))
        text = "st.global.v4.f32 [$0+{}], {{$1, $2, $3, $4}};"

        needed = self.has_tokens()
        with nullcontext() if needed is None else b.if_(needed):
            for i in range(0, len(sums), 4):
                at = i // 4 * QUAD_BYTES
                b.ptx(text.format(at), (), [place, *sums[i : i + 4]], effects=True)

    def collected(self, job: Value, first: Value, last: Value, quads: Sequence[int]) -> list[Value]:
        """Some quads of the sums that all blocks left of this warp's tile, in order.

        Those of several blocks are asked for at once: each takes as long as all.
        """
        b = self.b
        at_once = max(1, AT_ONCE // len(quads))
        nothing = b.const(0.0, f32)
        began = self.segment(job, first)
        with b.for_(first, last + 1, at_once, [nothing] * (4 * len(quads))) as owners:
            found: list[list[Value]] = []
            for i in range(at_once):
                owner = owners.iv + i
                segment = b.select(owner.eq(first), began, b.const(0, i32))
                place = self.place(b.min(owner, last), segment)
                words = [b.load_words(place, q * QUAD_BYTES, 4, "cg") for q in quads]
                values = [b.reinterpret(word, f32) for quad in words for word in quad]
                found.append([b.select(owner <= last, one, nothing) for one in values])
            added = owners.args
            for values in found:
                added = [a + c for a, c in zip(added, values, strict=True)]
            owners.yield_(*added)
        return owners.results


def _picked(sums: Sequence[Value], quads: Sequence[int]) -> list[Value]:
    return [value for quad in quads for value in sums[4 * quad : 4 * quad + 4]]
