"""bf16 products on AMX tiles: weights decoded and activations rounded to bf16, sums in f32.

The operands of `tdpbf16ps` are tiles of 16 rows of 64 bytes: 16 tokens x 32 columns, and 16 pairs
of columns x 16 weight rows. A 32 x 32 block of sums stays in four tiles over a block of columns.
Works for every weight format and needs no work per scale group. Both operands are rounded to 8
significant bits: a relative error of about 2e-3, below that of 8-bit activations.

The process must have asked Linux for tile state once (arch_prctl ARCH_REQ_XCOMP_PERM).
"""

from dataclasses import dataclass, field

from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, bf16, i8, i32, i64, vec
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.gemm import GemmTiles, Product, Scratch, Sums, column_block
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import reader
from nybble.backends.cpu.tile_layout import LANES, TILE

TILE_COLUMNS = 32
TILE_BYTES = 1024
L2_SHARE = 3 << 19
"""Bytes of an L2 of 2 MB that bf16 activations may fill (assumed)."""
_CONFIG = [1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8]
"""Palette 1; all eight tiles have 64 bytes in each of 16 rows (Intel SDM, LDTILECFG)."""


def amx_tiles(spec: MatmulSpec) -> GemmTiles:
    """Sizes that keep a weight block in L1; more tiles at once where activations outgrow L2."""
    tiles = 1 if spec.tokens * spec.cols * 2 <= L2_SHARE else 4
    return GemmTiles(columns=256, tiles=tiles, subtiles=2, tokens=32, unroll=2)


@dataclass
class AmxProduct(Product):
    """Activations become bf16 tiles once per thread; weights once per block of columns."""

    spec: MatmulSpec
    tiles: GemmTiles
    columns: int = field(init=False)

    def __post_init__(self) -> None:
        group = getattr(self.spec.weight, "group", TILE_COLUMNS)
        step = group if group % TILE_COLUMNS == 0 else TILE_COLUMNS
        self.columns = column_block(self.spec, self.tiles.columns, step)
        self.slots = self.tiles.tiles
        self.steps = self.spec.cols // TILE_COLUMNS
        self.token_tiles = -(-self.spec.tokens // self.tiles.tokens) * 2

    def reserve(self, scratch: Scratch) -> None:
        """See Product: tile configuration, activations bf16 in tiles, weights per slot."""
        self.config_at = scratch.take(64)
        self.tokens_at = scratch.take(self.token_tiles * self.steps * TILE_BYTES)
        self.weights_at = scratch.take(self.slots * self.columns * TILE * 2)

    def begin(self, b: KernelBuilder, scratch: Buffer) -> None:
        """See Product: configure tiles, convert this call's activations."""
        self.b = b
        config = scratch.part(self.config_at, 64)
        config.vstore(b.const(_CONFIG, vec(64, i8)), 0)
        b.intrinsic_effect("llvm.x86.ldtilecfg", (config.pointer(),))
        size = self.token_tiles * self.steps * TILE_BYTES
        self.x = scratch.view(bf16, self.tokens_at, size // 2)
        size = self.slots * self.columns * TILE * 2
        self.weights = scratch.view(i32, self.weights_at, size // 4)
        self._convert()

    def end(self) -> None:
        """See Product: give the tile state back."""
        self.b.intrinsic_effect("llvm.x86.tilerelease", ())

    def unpack(self, part: int, tile: Value, first: Value, slot: Value) -> None:
        """See Product."""
        size = self.columns * TILE // 2
        out = self.weights.part(slot * size, size)
        reader(self.b, self.spec, part, self.columns).unpack_bf16(tile, first, self.columns, out)

    def _convert(self) -> None:
        """Activations to bf16 [token / 16][column / 32][16][32]."""
        b = self.b
        with b.for_(0, b.n) as token, b.for_(0, self.steps) as step:
            tile = (token.iv // LANES * self.steps + step.iv) * (TILE_BYTES // 2)
            at = tile + token.iv % LANES * TILE_COLUMNS
            for half in range(0, TILE_COLUMNS, LANES):
                column = token.iv * self.spec.cols + step.iv * TILE_COLUMNS + half
                value = b.buffer("x").vload(column, LANES)
                self.x.vstore(b.to_float(value, bf16), at + half)

    def multiply(self, sums: Sums, first: Value, slots: Value) -> None:
        """See Product."""
        b = self.b
        with (
            b.for_(0, b.n, self.tiles.tokens) as token,
            b.for_(0, slots) as slot,
            b.for_(0, 4, 2) as subtile,
        ):
            self._block(sums, first, (token.iv, slot.iv, subtile.iv))

    def _block(self, sums: Sums, first: Value, at: tuple[Value, Value, Value]) -> None:
        """32 tokens x 32 weight rows: tiles 0 .. 3 hold sums, 4 and 5 tokens, 6 and 7 weights."""
        b = self.b
        token, slot, subtile = at
        stride = b.const(sums.stride * 4, i64)
        places = [
            sums.buffer.pointer(sums.at(token + c * LANES, slot, subtile + r))
            for c in range(2)
            for r in range(2)
        ]
        for i, place in enumerate(places):
            self._tile("tileloadd64", i, place, stride)
        count = self.columns // TILE_COLUMNS
        unroll = divisor(count, self.tiles.unroll)
        x = (token // LANES * self.steps + first // TILE_COLUMNS) * (TILE_BYTES // 2)
        w = (slot * 4 + subtile) * (self.columns * LANES // 2)
        with b.for_(0, count, unroll) as loop:
            for i in range(unroll):
                step = loop.iv + i
                self._step(x + step * (TILE_BYTES // 2), w + step * (TILE_BYTES // 4))
        for i, place in enumerate(places):
            self._tile("tilestored64", i, place, stride)

    def _step(self, x: Value, w: Value) -> None:
        """Add the products of 32 columns."""
        b = self.b
        line = b.const(64, i64)
        for i in range(2):
            place = w + i * self.columns * (LANES // 2)
            self._tile("tileloadd64", 6 + i, self.weights.pointer(place), line)
        for c in range(2):
            place = x + c * self.steps * (TILE_BYTES // 2)
            self._tile("tileloadd64", 4 + c, self.x.pointer(place), line)
            for r in range(2):
                numbers = [b.immediate(n) for n in (2 * c + r, 4 + c, 6 + r)]
                b.intrinsic_effect("llvm.x86.tdpbf16ps", numbers)

    def _tile(self, name: str, number: int, place: Value, stride: Value) -> None:
        b = self.b
        b.intrinsic_effect(f"llvm.x86.{name}", (b.immediate(number), place, stride))
