"""Matrix times many token rows: the loops that every kind of product shares.

A thread takes its tiles of weight rows a few at a time. For each block of columns it unpacks the
tiles' weights into scratch, in the order that the product wants, and multiplies them with all token
rows; sums stay in scratch as f32 `[token][slot][64 rows]` until the last block, when the epilogue
writes the outputs. A slot is one tile. The parts of a gated pair take turns in the same slots, all
columns of one before the other: what is unpacked stays in the nearest cache, and packed weights are
read one after the other. Each has its own sums.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i8
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.adding import Adding, scratch_size
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.parts import for_each_run
from nybble.backends.cpu.kernels.matmul.spec import ProductSpec
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE

ALIGNMENT = 64


@dataclass(frozen=True)
class GemmTiles:
    """Sizes that do not change the result beyond the order of sums.

    columns: contracted columns of a block, at most. tiles: weight tiles unpacked at once.
    subtiles, tokens: what the innermost loop keeps in registers. unroll: its steps in a round.
    ahead: blocks of columns between what is unpacked and what is prefetched; 0 for no prefetch.
    tokens_outer: whether token rows are the outer of the loops over unpacked tiles and tokens.
    """

    columns: int
    tiles: int
    subtiles: int
    tokens: int
    unroll: int = 8
    ahead: int = 1
    tokens_outer: bool = False


class Scratch:
    """Hands out parts of a thread's scratch bytes; `size` is what was taken so far."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, size: int) -> int:
        """The offset of `size` new bytes, aligned to a cache line."""
        offset = self.size
        self.size += -(-size // ALIGNMENT) * ALIGNMENT
        return offset


class Product(ABC):
    """What differs between kinds of products: the operand's form and the innermost loops."""

    tiles: GemmTiles
    columns: int

    @abstractmethod
    def reserve(self, scratch: Scratch) -> None:
        """Take the scratch that `begin`, `unpack` and `multiply` use."""

    @abstractmethod
    def begin(self, b: KernelBuilder, scratch: Buffer) -> None:
        """Emit what comes once, before all tiles. `scratch` is the thread's own slice."""

    def end(self) -> None:
        """Emit what comes once, after all tiles: nothing, unless a product says otherwise."""
        return

    @abstractmethod
    def unpack(self, part: int, tile: Value, first: Value, slot: Value) -> None:
        """Emit: unpack the columns from `first` on of a part's tile into a slot."""

    @abstractmethod
    def multiply(self, sums: "Sums", first: Value, slots: Value) -> None:
        """Emit: add the product of the unpacked columns for all tokens and `slots` slots."""


@dataclass(frozen=True)
class Sums:
    """The f32 sums of a part in scratch: [token][slot][64 rows]."""

    buffer: Buffer
    slots: int

    @property
    def stride(self) -> int:
        """Elements from a token to the next."""
        return self.slots * TILE

    def at(self, token: Value, slot: Value, subtile: Value | int) -> Value:
        """Element where a sub-tile's 16 sums start."""
        return token * self.stride + slot * TILE + self.buffer.ref.emitter.value(subtile) * LANES


@contextmanager
def register_tiles(
    b: KernelBuilder, tiles: GemmTiles, slots: Value
) -> Generator[tuple[Value, Value, Value]]:
    """Loops over all unpacked tiles and tokens: slot, first sub-tile and first token of each."""
    with ExitStack() as loops:

        def over(total: Value | int, step: int) -> Value:
            return loops.enter_context(b.for_(0, total, step)).iv

        if tiles.tokens_outer:
            token = over(b.n, tiles.tokens)
            yield over(slots, 1), over(SUBTILES, tiles.subtiles), token
        else:
            yield over(slots, 1), over(SUBTILES, tiles.subtiles), over(b.n, tiles.tokens)


def column_block(spec: ProductSpec, most: int, step: int) -> int:
    """The largest divisor of the contracted length up to `most` that is a multiple of `step`."""
    return divisor(spec.cols, most, step)


class Gemm:
    """A kernel for a spec with many tokens around one kind of product."""

    def __init__(self, spec: ProductSpec, product: Product):
        self.spec = spec
        self.product = product
        self.slots = product.tiles.tiles
        self.scratch = Scratch()
        self.sums_at = [self.scratch.take(self._sum_count() * 4) for _ in spec.joined[0]]
        product.reserve(self.scratch)
        self.thin_at = self.scratch.take(scratch_size(spec))

    def lower(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.spec.buffers(self.scratch.size))
        own = b.buffer("scratch").view(i8, b.tid * self.scratch.size, self.scratch.size)
        self.b = b
        views = [own.view(f32, place, self._sum_count()) for place in self.sums_at]
        self.sums = [Sums(view, self.slots) for view in views]
        self.adding = Adding(
            b, self.spec, own.view(f32, self.thin_at, scratch_size(self.spec) // 4)
        )
        with b.if_(b.n > 0):
            self.product.begin(b, own)
            self.adding.begin(b.n)
            for_each_run(b, self.spec, self.product.tiles.tiles, self._run)
            self.product.end()
        return b.finish()

    def _sum_count(self) -> int:
        """Sums of one part."""
        tokens = self.product.tiles.tokens
        return -(-self.spec.tokens // tokens) * tokens * self.slots * TILE

    def _run(self, parts: tuple[int, ...], tile: Value, tiles: Value) -> None:
        """All columns of a few tiles, then their epilogue."""
        b, product = self.b, self.product
        self._clear(tiles)
        for part, sums in zip(parts, self.sums, strict=True):
            with b.for_(0, self.spec.cols, product.columns) as block:
                with b.for_(0, tiles) as each:
                    product.unpack(part, tile + each.iv, block.iv, each.iv)
                product.multiply(sums, block.iv, tiles)
        self._finish(parts, tile, tiles)

    def _clear(self, slots: Value) -> None:
        b = self.b
        rounded = (b.n + (self.product.tiles.tokens - 1)) // self.product.tiles.tokens
        with b.for_(0, rounded * self.product.tiles.tokens) as token, b.for_(0, slots) as slot:
            for sums in self.sums:
                for r in range(SUBTILES):
                    at = sums.at(token.iv, slot.iv, r)
                    sums.buffer.vstore(b.const(0.0, FLOATS), at)

    def _finish(self, parts: tuple[int, ...], tile: Value, tiles: Value) -> None:
        b = self.b
        epilogue = Epilogue(b, self.spec)
        with b.for_(0, b.n) as token, b.for_(0, tiles) as each:
            for part, sums in zip(parts, self.sums, strict=True):
                at = sums.at(token.iv, each.iv, 0)
                self.adding.add(part, tile + each.iv, token.iv, (sums.buffer, at))
            for r in range(SUBTILES):
                row = (tile + each.iv) * TILE + r * LANES
                values = [
                    sums.buffer.vload(sums.at(token.iv, each.iv, r), LANES) for sums in self.sums
                ]
                epilogue.finish(parts[0], token.iv, row, tuple(values))
