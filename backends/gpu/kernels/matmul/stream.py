"""Kernels that read weights in a stream; tokens are the side of 8 of an `mma`.

Each warp has a tile of rows of its own and walks along the columns, a record at a time, with the
next records under way in its own ring in shared memory. No warp waits for another. The work of all
blocks of rows, one after the other, is divided evenly among the blocks of threads ("stream-K",
Osama et al., arXiv 2301.03598), so that all multiprocessors stream until the end; `sums` adds up
what several blocks have of one tile. More than 64 tokens are multiplied in several passes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log2
from typing import Generic, Protocol, TypeVar

from xdsl.dialects.builtin import ModuleOp, f32, i32, i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.matmul.outliers import Outliers
from nybble.backends.gpu.kernels.matmul.results import Results
from nybble.backends.gpu.kernels.matmul.spec import TOKEN_TILE, StreamSpec
from nybble.backends.gpu.kernels.matmul.stored import Tokens
from nybble.backends.gpu.kernels.matmul.sums import Reduction, Sums
from nybble.backends.gpu.packing.stream import LANES, LOAD

A = TypeVar("A")
"""Where a kernel's activations lie."""


@dataclass
class Cursor:
    """The next record to ask for: this lane's places in its slot of the ring and in memory, its job
    and step, and how many are left.

    The place in the ring is the lane's own, and not the slot: of an offset that is the same in all
    lanes, ptxas 13.0 makes a uniform register of the very quad that holds the cache policy of
    `cp.async`, and the H100 stops at an illegal instruction.
    """

    slot: Value
    source: Value
    job: Value
    step: Value
    left: Value

    def values(self) -> list[Value]:
        """As loops carry it."""
        return [self.slot, self.source, self.job, self.step, self.left]


class Multiplies(Protocol):
    """A record of weights, and the activations at its columns."""

    def load_activations(self) -> None:
        """Load all activations of the record before the weights are waited for."""
        ...

    def add_to(self, sums: Sums) -> None:
        """Multiply, scale, and add to the sums."""
        ...


class StreamKernel(ABC, Generic[A]):
    """Builds the kernel of a spec; see the module's text."""

    def __init__(self, spec: StreamSpec, name: str):
        self.spec = spec
        self.layout = spec.layout
        self.b = b = GpuBuilder(name, spec.parameters)
        self.inputs = b.parameters[: len(spec.inputs)]
        self.w, *added, y, partials, counters = b.parameters[len(spec.inputs) :]
        self.lane = b.thread() & 31
        self.warp = b.thread().shr(5)
        self.part = self.warp & (spec.tuning.split - 1)
        self.row = self.lane.shr(2)
        self.quad = self.lane & 3
        once = spec.tuning.evict_first and spec.passes == 1
        self.policy = b.evict_first() if once else None
        ring = self.warp * (spec.tuning.stages * self.layout.record_bytes)
        self.ring = b.offset(b.shared(), ring + spec.ring_start)
        self.carried: list[Value] = []
        self.reduction = Reduction(b, spec, partials, counters)
        residual = added[0] if added else None
        outliers = Outliers(b, spec, self.w, self.inputs[0]) if spec.layout.outliers else None
        self.results = Results(b, spec, self.finished, y, residual, outliers)

    @abstractmethod
    def activations(self, job: Value) -> A:
        """Where the activations of a job lie."""

    @abstractmethod
    def record(self, place: Value, activations: A, step: Value) -> Multiplies:
        """The record at a place in shared memory, and its activations at a step."""

    @abstractmethod
    def finished(self, token: Value, value: Value) -> Value:
        """The result that a sum is, of a token."""

    def build(self) -> ModuleOp:
        """The module."""
        b = self.b
        first, last = self.reduction.start(b.block_id()), self.reduction.start(b.block_id() + 1)
        self.walk(first, last)
        return b.finish(self.spec.threads, self.spec.tuning.blocks_per_sm)

    def walk(self, first: Value, last: Value) -> None:
        """Multiply the steps first .. last - 1; records may change what loops carry."""
        b, spec, steps = self.b, self.spec, self.spec.steps
        cursor = self.prologue(first, last)
        zero, end = b.const(0, i32), self.job_of(last + (steps - 1))
        state = [zero, *cursor.values(), *self.carried]
        with b.for_(self.job_of(first), end, 1, state) as jobs:
            activations = self.activations(jobs.iv)
            lo = b.max(first - jobs.iv * steps, 0)
            hi = b.min(last - jobs.iv * steps, steps)
            sums = [b.const(0.0, f32)] * (4 * self.layout.placement.fragments * spec.token_tiles)
            with b.for_(lo, hi, 1, [*jobs.args, *sums]) as columns:
                slot, *asked = columns.args[:6]
                self.carried = columns.args[6 : len(state)]
                kept = self.reduction.nested(columns.args[len(state) :])
                step = columns.iv * spec.tuning.split + self.part
                record = self.record(b.offset(self.ring, slot), activations, step)
                if spec.tuning.prefetch:
                    record.load_activations()
                b.arrive(spec.tuning.stages - 2)
                b.sync_warp()
                cursor = self.fetch(Cursor(*asked))
                record.add_to(kept)
                state = [self.next_slot(slot, zero), *cursor.values(), *self.carried]
                columns.yield_(*state, *flattened(kept))
            self.finish_rows(jobs.iv, self.reduction.exchanged(columns.results[len(state) :]))
            jobs.yield_(*columns.results[: len(state)])
        b.arrive(0)

    # -- the division of work

    def job_of(self, step: Value) -> Value:
        """The job that a step is of."""
        return self.b.binary("udiv", step, self.b.const(self.spec.steps, i32))

    def pass_and_rows(self, job: Value) -> tuple[Value, Value]:
        """The pass and the block of rows of a job."""
        b, blocks = self.b, self.b.const(self.spec.row_blocks, i32)
        if self.spec.passes == 1:
            return b.const(0, i32), job
        return b.binary("udiv", job, blocks), b.binary("urem", job, blocks)

    def tile(self, job: Value) -> Value:
        """The tile of rows of this warp in a job."""
        _, rows = self.pass_and_rows(job)
        return rows * self.spec.block_tiles + self.warp.shr(int(log2(self.spec.tuning.split)))

    # -- the stream

    def source(self, job: Value, step: Value) -> Value:
        """This lane's place in the record of this warp; of the last tile if there is none."""
        b, layout = self.b, self.layout
        tile = b.min(self.tile(job), layout.tiles - 1)
        records = b.zext(tile * layout.steps + step * self.spec.tuning.split + self.part, i64)
        lane = b.zext(self.lane * LOAD, i64)
        return b.offset(self.w, records * layout.record_bytes + lane)

    def prologue(self, first: Value, last: Value) -> Cursor:
        """Ask for the first records."""
        job = self.job_of(first)
        step = first - job * self.spec.steps
        cursor = Cursor(self.lane * LOAD, self.source(job, step), job, step, last - first)
        for _ in range(self.spec.tuning.stages - 1):
            cursor = self.fetch(cursor)
        return cursor

    def fetch(self, cursor: Cursor) -> Cursor:
        """Ask for a record, if there is one left."""
        b, layout = self.b, self.layout
        target = b.offset(self.ring, cursor.slot)
        whole, rest = divmod(layout.record_bytes, LANES * LOAD)
        with b.if_(cursor.left > 0):
            for i in range(whole):
                place = self.copied_to(target, i)
                b.copy_async(place, cursor.source, i * LANES * LOAD, self.policy)
            if rest:
                with b.if_(self.lane < rest // LOAD):
                    b.copy_async(target, cursor.source, whole * LANES * LOAD, self.policy)
        b.commit()
        at_end = (cursor.step + 1).eq(self.spec.steps)
        job = b.select(at_end, cursor.job + 1, cursor.job)
        step = b.select(at_end, b.const(0, i32), cursor.step + 1)
        along = b.offset(cursor.source, layout.record_bytes * self.spec.tuning.split)
        source = b.select(at_end, self.source(job, step), along)
        slot = self.next_slot(cursor.slot, self.lane * LOAD)
        return Cursor(slot, source, job, step, cursor.left - 1)

    def copied_to(self, target: Value, load: int) -> Value:
        """Where this lane's 16 bytes of a load of a record go; target: its place in the slot."""
        return target

    def next_slot(self, slot: Value, first: Value) -> Value:
        """The offset of the slot after one; first: the offset in the first slot."""
        moved = slot + self.layout.record_bytes
        whole = first + self.spec.tuning.stages * self.layout.record_bytes
        return self.b.select(moved.eq(whole), first, moved)

    # -- the tokens and their results

    def first_token(self, job: Value) -> Value:
        """The first token of the pass that a job is of."""
        return self.pass_and_rows(job)[0] * self.spec.pass_tokens

    def by_tile(
        self, first: Value, last: int, stride: int, place: Callable[[Value], Value]
    ) -> list[Tokens]:
        """Where what this lane has of each tile of tokens begins.

        first: its token of the first tile. place: gives a token's place; tokens are `stride` bytes
        apart. Tiles that have all their tokens share a pointer; `last` is read instead of tokens
        that do not exist.
        """
        shared = place(first)
        found: list[Tokens] = []
        for n in range(self.spec.token_tiles):
            if self.spec.is_full(n):
                found.append(Tokens(shared, n * TOKEN_TILE * stride))
            else:
                found.append(Tokens(place(self.b.min(first + TOKEN_TILE * n, last)), 0))
        return found

    def tokens(self, job: Value) -> list[Tokens]:
        """Where this lane's activations begin, by tile of tokens."""
        b, spec = self.b, self.spec
        stride = spec.token_bytes(self.layout.cols)
        mine = b.offset(self.inputs[0], b.zext(self.quad * spec.lane_bytes, i64))

        def place(token: Value) -> Value:
            return b.offset(mine, b.zext(token, i64) * stride)

        return self.by_tile(self.first_token(job) + self.row, spec.tokens - 1, stride, place)

    def finish_rows(self, job: Value, sums: list[Value]) -> None:
        """Write the results of a job, or leave sums for the block of threads that will."""
        b, spec = self.b, self.spec
        tile, token = self.tile(job), self.first_token(job)
        exists = tile < self.layout.tiles
        if spec.own_quads * spec.tuning.split > spec.quads:
            exists = exists & (self.part * spec.own_quads < spec.quads)
        with b.if_(exists):
            self.reduction.finish(job, sums, partial(self.results.write, tile, self.part, token))


def flattened(sums: Sums) -> list[Value]:
    """Sums as a loop carries them."""
    return [value for row in sums for quad in row for value in quad]
