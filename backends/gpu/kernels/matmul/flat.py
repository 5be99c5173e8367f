"""Products of few tokens: every weight is read once, in a stream; the tokens are the side of 8.

Each warp has a tile of rows of its own and walks along the columns, a record at a time, with the
next records under way in its own ring in shared memory. No warp waits for another. The work of all
blocks of rows, one after the other, is divided evenly among the blocks of threads ("stream-K",
Osama et al., arXiv 2301.03598), so that all multiprocessors stream until the end. Where a tile's
columns belong to several blocks, each leaves its sums in memory, and the last to arrive adds all of
them up, in the order of columns: results are the same in every run.

`mma.m16n8k16` multiplies `offset + code` (see `placement`); the sums of a group are
`P = sum (offset + code) x`, and `X = sum x` comes from one more `mma`, with a fragment of ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp, f32, i32, i64

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.kernels.matmul.decode import Tile
from nybble.backends.gpu.kernels.matmul.spec import FLOAT_BYTES, FlatSpec
from nybble.backends.gpu.packing.stream import LANES, LOAD, SCALE_BYTES, UNIT

ONES = {"f16": 0x3C003C00, "bf16": 0x3F803F80}
TILES = 4
"""Tiles of 16 columns in a unit."""
Sums = list[list[list[Value]]]
"""By fragment and token tile: the four sums of a lane."""


@dataclass
class Cursor:
    """Where the next record to be read lies: its slot in the ring, its address, its place."""

    slot: Value
    source: Value
    block: Value
    step: Value
    left: Value

    def values(self) -> list[Value]:
        """As loops carry it."""
        return [self.slot, self.source, self.block, self.step, self.left]


class FlatKernel:
    """Builds the kernel of a spec; see the module's text."""

    def __init__(self, spec: FlatSpec, name: str):
        self.spec = spec
        self.layout = spec.layout
        self.b = b = GpuBuilder(name, spec.parameters)
        self.x, self.w, self.y, self.partials, self.counters = b.parameters
        self.lane = b.thread() & 31
        self.warp = b.thread().shr(5)
        self.row = self.lane.shr(2)
        self.quad = self.lane & 3
        self.policy = b.evict_first() if spec.tuning.evict_first else None
        ring = self.warp * (spec.tuning.stages * spec.slot_bytes)
        self.ring = b.offset(b.shared(), ring)

    def build(self) -> ModuleOp:
        """The module."""
        b, spec, steps = self.b, self.spec, self.layout.steps
        first, last = self.start(b.block_id()), self.start(b.block_id() + 1)
        self.tokens = [self.token_row(n) for n in range(spec.token_tiles)]
        cursor = self.prologue(first, last)
        zero = b.const(0, i32)
        end = b.binary("udiv", last + (steps - 1), b.const(steps, i32))
        with b.for_(cursor_block(b, first, steps), end, 1, [zero, *cursor.values()]) as blocks:
            slot, *state = blocks.args
            lo = b.max(first - blocks.iv * steps, 0)
            hi = b.min(last - blocks.iv * steps, steps)
            sums = [b.const(0.0, f32)] * (4 * self.layout.placement.fragments * spec.token_tiles)
            with b.for_(lo, hi, 1, [slot, *state, *sums]) as columns:
                slot, *state = columns.args[:6]
                kept = self.nested(columns.args[6:])
                b.arrive(spec.tuning.stages - 2)
                b.sync_warp()
                cursor = self.fetch(Cursor(*state))
                self.step(slot, columns.iv, kept)
                columns.yield_(self.next_slot(slot), *cursor.values(), *flattened(kept))
            self.finish_rows(blocks.iv, self.nested(columns.results[6:]))
            blocks.yield_(*columns.results[:6])
        b.arrive(0)
        return b.finish(32 * spec.tuning.warps, spec.tuning.blocks_per_sm)

    # -- the division of work

    def start(self, block: Value) -> Value:
        """The first step of a block of threads."""
        b, spec = self.b, self.spec
        return b.binary("udiv", block * spec.work, b.const(spec.blocks, i32))

    def owner(self, step: Value) -> Value:
        """The block of threads that has a step."""
        b, spec = self.b, self.spec
        return b.binary("udiv", (step + 1) * spec.blocks - 1, b.const(spec.work, i32))

    def tile(self, block: Value) -> Value:
        """The tile of rows of this warp in a block of rows."""
        return block * self.spec.tuning.warps + self.warp

    # -- the stream

    def source(self, block: Value, step: Value) -> Value:
        """This lane's place in the record of this warp; of the last tile if there is none."""
        b, layout = self.b, self.layout
        tile = b.min(self.tile(block), layout.tiles - 1)
        records = b.zext(tile * layout.steps + step, i64)
        lane = b.zext(self.lane * LOAD, i64)
        return b.offset(self.w, records * layout.record_bytes + lane)

    def prologue(self, first: Value, last: Value) -> Cursor:
        """Ask for the first records."""
        b, steps = self.b, self.layout.steps
        block = cursor_block(b, first, steps)
        step = first - block * steps
        cursor = Cursor(b.const(0, i32), self.source(block, step), block, step, last - first)
        for _ in range(self.spec.tuning.stages - 1):
            cursor = self.fetch(cursor)
        return cursor

    def fetch(self, cursor: Cursor) -> Cursor:
        """Ask for a record, if there is one left."""
        b, layout = self.b, self.layout
        target = b.offset(self.ring, cursor.slot + self.lane * LOAD)
        whole, rest = divmod(layout.record_bytes, LANES * LOAD)
        with b.if_(cursor.left > 0):
            for i in range(whole):
                b.copy_async(target, cursor.source, i * LANES * LOAD, self.policy)
            if rest:
                with b.if_(self.lane < rest // LOAD):
                    b.copy_async(target, cursor.source, whole * LANES * LOAD, self.policy)
        b.commit()
        at_end = (cursor.step + 1).eq(layout.steps)
        block = b.select(at_end, cursor.block + 1, cursor.block)
        step = b.select(at_end, b.const(0, i32), cursor.step + 1)
        along = b.offset(cursor.source, layout.record_bytes)
        source = b.select(at_end, self.source(block, step), along)
        return Cursor(self.next_slot(cursor.slot), source, block, step, cursor.left - 1)

    def next_slot(self, slot: Value) -> Value:
        """The offset of the slot after one."""
        moved = slot + self.spec.slot_bytes
        whole = self.spec.tuning.stages * self.spec.slot_bytes
        return self.b.select(moved.eq(whole), self.b.const(0, i32), moved)

    # -- one record

    def token_row(self, token_tile: int) -> Value:
        """Where this lane's activations begin; lanes beyond the tokens read those of the last."""
        b, layout = self.b, self.layout
        token = b.min(self.row + 8 * token_tile, self.spec.tokens - 1)
        run = 16 if layout.run_columns == 32 else 8
        return b.offset(self.x, b.zext(token * (layout.cols * 2) + self.quad * run, i64))

    def step(self, slot: Value, step: Value, sums: Sums) -> None:
        """Multiply a record and add to the sums."""
        b, layout, placement = self.b, self.layout, self.layout.placement
        record = b.offset(self.ring, slot)
        along = b.zext(step * (layout.step * 2), i64)
        tokens = [b.offset(row, along) for row in self.tokens]
        scales = self.scales(record, 0)
        zeros = self.scales(record, 1) if layout.zero else None
        tiles = layout.units * TILES
        per_group = tiles // layout.groups
        group = Group(self, tokens)
        words: list[Value] = []
        for tile in range(tiles):
            if tile % TILES == 0:
                words = self.unit_words(record, tile // TILES)
            at = tile % TILES * placement.words
            group.multiply(tile, Tile(b, placement, words[at : at + placement.words]))
            if (tile + 1) % per_group == 0:
                index = tile // per_group
                group.add_to(sums, scales[index], zeros[index] if zeros else None)
                group = group.next()

    def unit_words(self, record: Value, unit: int) -> list[Value]:
        """The words of this lane of a unit."""
        b, layout = self.b, self.layout
        mine = b.offset(record, self.lane * LOAD)
        found: list[Value] = []
        for load in range(layout.loads):
            at = (unit * layout.loads + load) * LANES * LOAD
            found += b.lanes_of(b.load(b.offset(mine, at), vec(4, i32)))
        return found

    def scales(self, record: Value, kind: int) -> list[list[Value]]:
        """By group: f32 of each fragment's two rows. kind: 0 scales, 1 zeros."""
        b, layout = self.b, self.layout
        size, width = layout.lane_scale_bytes, SCALE_BYTES[layout.scale]
        mine = b.offset(record, self.row * size)
        first = layout.code_bytes + kind * layout.scale_bytes
        most = min(LOAD, size & -size)
        numbers: list[Value] = []
        for at in range(0, size, most):
            loaded = b.load(b.offset(mine, first + at), vec(most // width, ELEMENTS[layout.scale]))
            numbers += [b.to_float(one) for one in b.lanes_of(loaded)]
        count = 2 * layout.placement.fragments
        return [numbers[i : i + count] for i in range(0, len(numbers), count)]

    # -- the sums

    def nested(self, flat: Sequence[Value]) -> Sums:
        """Sums that a loop carries, by fragment and token tile."""
        tiles = self.spec.token_tiles
        quads = [list(flat[i : i + 4]) for i in range(0, len(flat), 4)]
        return [quads[i : i + tiles] for i in range(0, len(quads), tiles)]

    def finish_rows(self, block: Value, sums: Sums) -> None:
        """Write the sums of a block of rows, or leave them for the block that will add them up."""
        b, steps = self.b, self.layout.steps
        tile = self.tile(block)
        first, last = self.owner(block * steps), self.owner(block * steps + (steps - 1))
        with b.if_(tile < self.layout.tiles):
            with b.if_(first.eq(last)) as alone:
                self.write(tile, sums)
            with alone.otherwise():
                self.leave(block, sums)
                b.fence()
                b.sync_warp()
                others = last - first
                before = self.arrived(tile)
                with b.if_(before.eq(others)):
                    b.fence()
                    self.write(tile, self.collected(block, first, last))
                    self.reset(tile)

    def place(self, block: Value, owner: Value) -> Value:
        """Where a block of threads leaves this warp's sums: its first segment's, or its last's."""
        b, spec = self.b, self.spec
        began_before = self.start(owner) < block * self.layout.steps
        segment = owner * 2 + b.select(began_before, b.const(1, i32), b.const(0, i32))
        slot = segment * spec.tuning.warps + self.warp
        at = b.zext(slot, i64) * spec.partial_bytes + b.zext(self.lane * LOAD, i64)
        return b.offset(self.partials, at)

    def leave(self, block: Value, sums: Sums) -> None:
        """Write this block's sums for others."""
        b = self.b
        place = self.place(block, b.block_id())
        for i, quad in enumerate(q for row in sums for q in row):
            names = "{$1, $2, $3, $4}"
            at = i * LANES * LOAD
            b.ptx(f"st.global.v4.f32 [$0+{at}], {names};", (), [place, *quad], effects=True)

    def arrived(self, tile: Value) -> Value:
        """How many blocks left sums of a tile before this one, which is counted now."""
        b = self.b
        pointer = b.offset(self.counters, tile * 4)
        count = b.select(self.lane.eq(0), b.const(1, i32), b.const(0, i32))
        return b.from_lane(b.fetch_add(pointer, count), 0)

    def reset(self, tile: Value) -> None:
        """Make the counter of a tile ready for the next launch."""
        b = self.b
        with b.if_(self.lane.eq(0)):
            b.store(b.const(0, i32), b.offset(self.counters, tile * 4))

    def collected(self, block: Value, first: Value, last: Value) -> Sums:
        """The sums that all blocks left of this warp's tile, in order."""
        b, spec = self.b, self.spec
        count = spec.layout.placement.fragments * spec.token_tiles
        zeros = [b.const(0.0, f32)] * (4 * count)
        with b.for_(first, last + 1, 1, zeros) as owners:
            place = self.place(block, owners.iv)
            found: list[Value] = []
            for i in range(count):
                words = b.load_words(place, i * LANES * LOAD, 4, "cg")
                found += [b.reinterpret(word, f32) for word in words]
            added = [a + c for a, c in zip(owners.args, found, strict=True)]
            owners.yield_(*added)
        return self.nested(owners.results)

    def write(self, tile: Value, sums: Sums) -> None:
        """Write results: rows g and g + 8 of a fragment, tokens 2t and 2t + 1 of a tile."""
        b, layout, spec = self.b, self.layout, self.spec
        width = FLOAT_BYTES[spec.output]
        factor = float(spec.kind.meaning.step)
        for i, row_sums in enumerate(sums):
            for n, quad in enumerate(row_sums):
                for e, value in enumerate(quad):
                    row = tile * layout.tile_rows + self.row + (16 * i + 8 * (e // 2))
                    token = self.quad * 2 + (8 * n + e % 2)
                    at = b.zext(token * layout.rows + row, i64) * width
                    result = b.to_float(
                        value * factor if factor != 1 else value, ELEMENTS[spec.output]
                    )
                    inside = (token < spec.tokens) if spec.tokens % 8 else None
                    if layout.rows % layout.tile_rows:
                        fits = row < layout.rows
                        inside = fits if inside is None else inside & fits
                    if inside is None:
                        b.store(result, b.offset(self.y, at))
                    else:
                        with b.if_(inside):
                            b.store(result, b.offset(self.y, at))


class Group:
    """The products of one group of columns: P of every fragment and token tile, and X."""

    def __init__(self, kernel: FlatKernel, tokens: Sequence[Value]):
        self.kernel = kernel
        self.tokens = tokens
        zero = kernel.b.const(0.0, f32)
        spec = kernel.spec
        self.products: Sums = [
            [[zero] * 4 for _ in range(spec.token_tiles)]
            for _ in range(spec.layout.placement.fragments)
        ]
        self.totals = [[zero] * 4 for _ in range(spec.token_tiles)]
        self.words: list[list[Value]] = []

    def next(self) -> "Group":
        """The group after this one, which may use the same activations."""
        made = Group(self.kernel, self.tokens)
        made.words = self.words
        return made

    def multiply(self, tile: int, weights: Tile) -> None:
        """Add the products of a tile of 16 columns."""
        kernel, b = self.kernel, self.kernel.b
        dtype = kernel.spec.activations
        kind = f"m16n8k16.row.col.f32.{dtype}.{dtype}.f32"
        operands = [self.activations(tile, n) for n in range(len(self.tokens))]
        ones = [b.const(ONES[dtype], i32)] * 4
        for n, operand in enumerate(operands):
            self.totals[n] = b.mma(kind, ones, operand, self.totals[n])
        for i, by_token in enumerate(self.products):
            fragment = weights.fragment(i)
            for n, operand in enumerate(operands):
                by_token[n] = b.mma(kind, fragment, operand, by_token[n])

    def activations(self, tile: int, token_tile: int) -> list[Value]:
        """The two registers of the B operand."""
        b = self.kernel.b
        unit, inner = divmod(tile, TILES)
        if self.kernel.layout.run_columns == 16:
            at = (unit * UNIT + 16 * inner) * 2
            return b.load_words(self.tokens[token_tile], at, 2)
        if inner % 2 == 0:
            at = (unit * UNIT + 16 * inner) * 2
            loaded = [b.load_words(pointer, at, 4) for pointer in self.tokens]
            self.words = loaded
        return self.words[token_tile][2 * (inner % 2) : 2 * (inner % 2) + 2]

    def add_to(self, sums: Sums, scales: Sequence[Value], zeros: Sequence[Value] | None) -> None:
        """Add the group, scaled, to the sums."""
        b, spec = self.kernel.b, self.kernel.spec
        placement, meaning, kind = spec.layout.placement, spec.kind.meaning, spec.layout.zero
        for i, by_token in enumerate(self.products):
            for upper in (0, 1):
                scale = scales[2 * i + upper]
                zero = zeros[2 * i + upper] if zeros else None
                shift = meaning.first / meaning.step - placement.offset(i, upper)
                for n, quad in enumerate(by_token):
                    for e in (2 * upper, 2 * upper + 1):
                        total = self.totals[n][e % 2]
                        if zero is not None and kind == "minimum":
                            less = b.fma(scale, b.const(shift, f32), zero * (1 / meaning.step))
                            sums[i][n][e] = b.fma(less, total, b.fma(scale, quad[e], sums[i][n][e]))
                            continue
                        less = (
                            b.const(shift, f32)
                            if zero is None
                            else shift - zero * (1 / meaning.step)
                        )
                        group = b.fma(less, total, quad[e])
                        sums[i][n][e] = b.fma(scale, group, sums[i][n][e])


def cursor_block(b: GpuBuilder, step: Value, steps: int) -> Value:
    """The block of rows that a step is of."""
    return b.binary("udiv", step, b.const(steps, i32))


def flattened(sums: Sums) -> list[Value]:
    """Sums as a loop carries them."""
    return [value for row in sums for quad in row for value in quad]
