"""Products of many tokens by warpgroups (`wgmma`), for Hopper.

Warps have tiles of rows and rings of records of their own, as in `stream`, and decode weights in
registers: these are the left operand of four warps side by side, 64 rows. Activations are the right
one, in shared memory: one thread more asks the tensor memory accelerator for boxes of all tokens of
a pass and 64 columns, into a ring that all warps share. A box is announced at one barrier, which
counts its bytes, and given back at another, at which each warp arrives when its products are done.
While one warpgroup decodes, another multiplies. No weight goes through shared memory decoded
(Marlin, Machete and Humming do so, too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from xdsl.dialects.builtin import ModuleOp, i32

from nybble.backends.building.values import Value
from nybble.backends.gpu.image import Access, Boxes, Parameter
from nybble.backends.gpu.kernels.matmul.decode import decoder, half_bits
from nybble.backends.gpu.kernels.matmul.record import Group, Multiplier
from nybble.backends.gpu.kernels.matmul.spec import FlatSpec
from nybble.backends.gpu.kernels.matmul.stored import Stored
from nybble.backends.gpu.kernels.matmul.stream import StreamKernel
from nybble.backends.gpu.kernels.matmul.sums import Sums
from nybble.backends.gpu.kernels.matmul.turned import Turned, TurnedRecord
from nybble.backends.gpu.kernels.warpgroup import (
    ALIGNMENT,
    BARRIER_BYTES,
    SPAN,
    WARPS,
    Barrier,
    Product,
    describe,
    limit_registers,
    multiply,
    publish_barriers,
    shared_address,
)
from nybble.backends.gpu.packing.stream import LANES, TILES, UNIT

FEWEST_TOKENS = 16
"""Below, most of a product would be of tokens that do not exist."""
MOST_TILES = 32
"""Tiles of tokens of a product, at most (PTX ISA, wgmma: n up to 256)."""
SUM_REGISTERS = 128
"""Of a thread, for sums: beside them there are what is decoded, scales, and where all lies."""
WARPGROUPS = 2
MULTIPLYING_REGISTERS, ASKING_REGISTERS = 240, 24
"""Of a thread: two warpgroups that multiply and one that asks have all of a multiprocessor's."""
FINISHED = 8
"""Quads of a warp that are finished at once."""
DECODED = 8
"""Fragments that are decoded before they are multiplied."""
MOST_BOXES = 8
FEWEST_BOXES = 3
EVEN = 0.85
"""The share of multiprocessors that must be at work for jobs to be divided so (assumed)."""


@dataclass(frozen=True)
class WarpgroupSpec(FlatSpec):
    """As FlatSpec, of many tokens. boxes: of activations that are read or under way."""

    boxes: int = MOST_BOXES

    @property
    def most_sums(self) -> int:
        """See StreamSpec: where fragments are not scaled, there are sums of a group, too, and maybe
        those of activations, as many as a fragment's.
        """
        fragments = self.layout.placement.fragments
        kinds = fragments if self.tuning.scale else 2 * fragments + self.has_totals
        return fragments * (SUM_REGISTERS // (4 * kinds))

    @property
    def products(self) -> int:
        """See StreamSpec."""
        return self.arch.group_products

    @property
    def most_tiles(self) -> int:
        """See StreamSpec."""
        return MOST_TILES

    @property
    def blocks(self) -> int:
        """See StreamSpec: blocks have whole jobs, or jobs whole blocks, if that leaves few
        multiprocessors idle, for the sums that blocks give each other are many here.
        """
        sms, jobs = self.arch.board.sms * self.tuning.blocks_per_sm, self.jobs
        each, pieces = -(-jobs // sms), min(max(1, sms // jobs), self.steps)
        even = jobs % each == 0 and jobs * pieces >= EVEN * each * sms
        return jobs * pieces // each if even else super().blocks

    def fitted(self) -> Self:
        """See StreamSpec: as many stages, then as many boxes."""
        small = replace(self, boxes=FEWEST_BOXES)
        while small.shared > self.arch.shared:
            small = replace(small, tuning=replace(small.tuning, stages=small.tuning.stages - 1))
        more = (self.arch.shared - small.shared) // (self.box_bytes + 2 * BARRIER_BYTES)
        return replace(small, boxes=min(self.boxes, FEWEST_BOXES + more))

    @property
    def parts(self) -> list[list[int]]:
        """See StreamSpec: some tiles of tokens of all fragments, as many as registers hold beside
        those of another block.
        """
        fragments, tiles = range(self.layout.placement.fragments), self.token_tiles
        some = max(1, FINISHED // len(fragments))
        firsts = range(0, tiles, some)
        parts = [range(first, min(first + some, tiles)) for first in firsts]
        return [[one * tiles + n for one in fragments for n in part] for part in parts]

    @property
    def threads(self) -> int:
        """See StreamSpec: one more warpgroup asks for boxes."""
        return LANES * (self.tuning.warps + WARPS)

    @property
    def box_bytes(self) -> int:
        """Bytes of the activations of a unit of columns."""
        return self.pass_tokens * SPAN

    @property
    def ring_start(self) -> int:
        """See StreamSpec: boxes come first, as they must be aligned."""
        return self.boxes * self.box_bytes

    @property
    def barriers_start(self) -> int:
        """Where the barriers begin in shared memory."""
        return -(-(self.ring_start + self.ring_bytes) // BARRIER_BYTES) * BARRIER_BYTES

    @property
    def shared(self) -> int:
        """See StreamSpec."""
        return self.barriers_start + 2 * self.boxes * BARRIER_BYTES

    @property
    def inputs(self) -> tuple[Parameter, ...]:
        """See StreamSpec."""
        shape, box = (self.layout.cols, self.tokens), (UNIT, self.pass_tokens)
        size = self.tokens * self.token_bytes(self.layout.cols)
        return (Parameter("x", self.half, Access.READ, size, Boxes(shape, box, SPAN)),)


class WarpgroupKernel(StreamKernel[None]):
    """See StreamKernel, and the module's text."""

    def __init__(self, spec: WarpgroupSpec, name: str):
        super().__init__(spec, name)
        decodes = decoder(self.b, self.layout.placement, spec.half, spec.kind.meaning)
        self.group_spec = spec
        self.multiplier = Multiplier(self.b, spec, decodes, self.lane)
        self.factor = decodes.factor * spec.kind.unit
        self.turned = Turned(self.b, self.layout, self.lane)
        zero = self.b.const(0, i32)
        self.carried = [zero, zero]
        self.shared = shared_address(self.b, self.b.shared())
        self.barriers = self.shared + spec.barriers_start

    def full(self, slot: Value) -> Barrier:
        """What announces the box of a slot."""
        return Barrier(self.b, self.barriers + slot * (2 * BARRIER_BYTES))

    def empty(self, slot: Value) -> Barrier:
        """What gives a slot back."""
        return Barrier(self.b, self.barriers + (slot * (2 * BARRIER_BYTES) + BARRIER_BYTES))

    def build(self) -> ModuleOp:
        """The module."""
        b, warps = self.b, self.spec.tuning.warps
        with b.if_(b.thread().eq(0)):
            for number in range(self.group_spec.boxes):
                slot = b.const(number, i32)
                self.full(slot).initialize(1)
                self.empty(slot).initialize(warps)
            publish_barriers(b)
        b.barrier()
        first, last = self.reduction.start(b.block_id()), self.reduction.start(b.block_id() + 1)
        with b.if_(self.warp >= warps):
            limit_registers(b, ASKING_REGISTERS, more=False)
            with b.if_(b.thread().eq(LANES * warps)):
                self.ask(first, last)
        with b.if_(self.warp < warps):
            limit_registers(b, MULTIPLYING_REGISTERS, more=True)
            self.walk(first, last)
        return b.finish(self.spec.threads, self.spec.tuning.blocks_per_sm, ALIGNMENT)

    def ask(self, first: Value, last: Value) -> None:
        """One thread asks for the boxes of all steps, each once its slot was given back."""
        b, units = self.b, self.layout.units
        inits = [b.const(0, i32), b.const(1, i32)]
        with b.for_(first, last, 1, inits) as steps:
            job = self.job_of(steps.iv)
            column = (steps.iv - job * self.spec.steps) * self.layout.step
            token = self.first_token(job)
            slot, parity = steps.args
            for unit in range(units):
                self.empty(slot).wait(parity)
                full = self.full(slot)
                full.expect(self.group_spec.box_bytes)
                target = self.shared + slot * self.group_spec.box_bytes
                full.copy_box(target, self.inputs[0], column + unit * UNIT, token)
                slot, parity = self.next_box(slot, parity)
            steps.yield_(slot, parity)

    def next_box(self, slot: Value, parity: Value) -> tuple[Value, Value]:
        """The slot after one, and the parity of its phase."""
        b = self.b
        at_end = (slot + 1).eq(self.group_spec.boxes)
        zero = b.const(0, i32)
        return b.select(at_end, zero, slot + 1), b.select(at_end, parity ^ 1, parity)

    def copied_to(self, target: Value, load: int) -> Value:
        """See StreamKernel: codes are turned, scales are not."""
        if load >= self.layout.code_bytes // (LANES * 16):
            return target
        return self.b.offset(target, self.turned.copied_to(load) - self.lane * 16)

    def activations(self, job: Value) -> None:
        """See StreamKernel: they come in boxes, one after the other."""

    def record(self, place: Value, activations: None, step: Value) -> WarpgroupRecord:
        """See StreamKernel."""
        return WarpgroupRecord(self, place)

    def finished(self, token: Value, value: Value) -> Value:
        """See StreamKernel."""
        return value * self.factor if self.factor != 1.0 else value


class WarpgroupRecord:
    """A record in shared memory, to be multiplied with the boxes that come next."""

    def __init__(self, kernel: WarpgroupKernel, place: Value):
        self.kernel = kernel
        self.b = kernel.b
        self.spec = kernel.group_spec
        self.layout = kernel.layout
        self.place = place
        self.stored = Stored(kernel.b, kernel.layout, place, kernel.lane)
        self.turned = TurnedRecord(kernel.turned, place)

    def load_activations(self) -> None:
        """See Multiplies: they are on their way."""

    def add_to(self, sums: Sums) -> None:
        """See Multiplies."""
        layout, scale = self.layout, self.spec.tuning.scale
        read = self.stored.halves if scale else self.stored.scales
        per_group = layout.units * TILES // layout.groups
        group: WarpgroupGroup | None = None
        for index in range(layout.groups):
            zeros = read(1, index) if layout.zero else None
            group = WarpgroupGroup(self.kernel, read(0, index), zeros, sums, group)
            size = min(per_group, TILES, DECODED // layout.placement.fragments)
            tiles = range(index * per_group, (index + 1) * per_group)
            for first in range(tiles.start, tiles.stop, size):
                self.multiply(group, range(first, first + size))
            if not scale:
                group.add_to(sums)
                sums[:] = [_quads(self.b.computed(_flat(one))) for one in sums]

    def multiply(self, group: WarpgroupGroup, tiles: range) -> None:
        """Add the products of some tiles of 16 columns of one unit."""
        b, kernel = self.b, self.kernel
        slot, parity = kernel.carried
        fragments = [group.decoded(self, tile) for tile in tiles]
        if tiles.start % TILES == 0:
            kernel.full(slot).wait(parity)
        box = describe(b, kernel.shared + slot * self.spec.box_bytes)
        first = tiles.start % TILES
        boxes = [box + (first + i) * (16 * 2 >> 4) for i in range(len(tiles))]
        group.multiply_all(fragments, boxes)
        if tiles.stop % TILES == 0:
            with b.if_(kernel.lane.eq(0)):
                kernel.empty(slot).arrive()
            kernel.carried = [*kernel.next_box(slot, parity)]


class WarpgroupGroup(Group):
    """See Group: products of several tiles at once."""

    def __init__(
        self,
        kernel: WarpgroupKernel,
        scales: Sequence[Value],
        zeros: Sequence[Value] | None,
        sums: Sums,
        before: WarpgroupGroup | None,
    ):
        """before: the group before it, whose registers it takes."""
        super().__init__(kernel.multiplier, scales, zeros, sums)
        self.fresh = not self.spec.tuning.scale
        self.place: Value | None = None
        if self.fresh and before is not None:
            self.products, self.totals = before.products, before.totals
            self.place = kernel.w

    def decoded(self, record: WarpgroupRecord, tile: int) -> list[list[Value]]:
        """The fragments of a tile: of row g and g + 8, columns 2t and then 2t + 8."""
        unit, inner = divmod(tile, TILES)
        halves = [record.turned.words(unit, inner, upper) for upper in (0, 1)]
        made: list[list[Value]] = []
        for index in range(self.spec.layout.placement.fragments):
            registers = [one for words in halves for one in self.decoder.fragment(words, index)[:2]]
            made.append(self.exact(registers, index))
        return made

    def multiply_all(self, tiles: list[list[list[Value]]], boxes: list[Value]) -> None:
        """Add the products of fragments, by tile, and of the boxes' columns."""
        b, spec, dtype = self.b, self.spec, self.spec.half
        work: list[Product] = []
        for fragments, box in zip(tiles, boxes, strict=True):
            work += [Product(i, rows, box) for i, rows in enumerate(fragments)]
            if spec.has_totals:
                one = half_bits([1.0], dtype)[0]
                work.append(Product(len(fragments), [b.word(one * 0x10001)] * 4, box))
        sums = [_flat(one) for one in self.products]
        if spec.has_totals:
            sums.append(_flat(self.totals))
        made = multiply(b, dtype, sums, work, anew=self.fresh, place=self.place)
        self.fresh, self.place = False, None
        nested = [_quads(one) for one in made]
        if spec.has_totals:
            self.totals = nested.pop()
        self.products[:] = nested


def _flat(quads: list[list[Value]]) -> list[Value]:
    return [value for quad in quads for value in quad]


def _quads(values: list[Value]) -> list[list[Value]]:
    return [values[i : i + 4] for i in range(0, len(values), 4)]
