"""The sizes of a tile of an attention, and where its parts lie in a thread's scratch."""

from dataclasses import dataclass

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.kv import KEY_BLOCK, KvCache
from nybble.backends.cpu.kernels.loops import divisor

ACCUMULATORS = 24
"""Sums of 16 lanes that 32 registers of 512 bits keep beside operands."""
STRIP_BYTES = 2048
"""Of the values whose components are read side by side in decode.

Measured on Zen 3: 512 to 4096 bytes ahead memory is read at its rate, as long as what is asked for
lies in a row, whatever the order in which it is used then.
"""
BLOCK_BYTES = 16384
"""Of the keys of a block that are read as they lie.

Measured on Zen 4: blocks of 16 and of 64 kB are read a tenth faster than those of 32 kB, the size
of its first cache; with those of 16 kB f32 takes 10.4 ms, and bf16 7.0, where 64 kB take 10.7 and
32 kB 12.0, and 7.9.
"""
FEW_ROWS = 4
"""Rows whose maxima lie in one vector: 4 of them are reduced with a quarter of the work of each."""


def accumulators(isa: Isa) -> int:
    """The same of a machine: operands take a quarter of the registers, and at least 4 of 16 lanes;
    where 16 registers of 128 bits are all, one sum is kept.

    Measured on Zen 3, 9 heads of 64: 4 sums instead of 24 halve decode and take 40% of prefill.
    """
    room = isa.registers * isa.vector_bits // (32 * KEY_BLOCK)
    return max(1, room - max(4, room // 4))


@dataclass(frozen=True)
class RegisterTile:
    """rows, and vectors of 16 keys (of S) or components (of O), of which registers keep sums."""

    rows: int
    keys: int
    values: int


@dataclass(frozen=True)
class TileShape:
    """The sizes of a tile and where its parts lie in a thread's scratch (in f32 elements).

    accumulators: sums of 16 lanes that the registers keep, at most; they change no result.
    own: the register tiles where somebody chose them; None for what follows from `accumulators`.
    folded: whether there is room for queries and weights times the scales of codes.
    apart: whether blocks that are read need not follow each other.
    """

    cache: KvCache
    group: int
    row_block: int
    key_block: int
    staged: bool
    accumulators: int = ACCUMULATORS
    own: RegisterTile | None = None
    folded: bool = False
    apart: bool = False

    @property
    def rows(self) -> int:
        """M."""
        return self.group * self.row_block

    @property
    def row_tile(self) -> int:
        """Rows of a register tile."""
        if self.own is not None:
            return self.own.rows
        limit = 8 if self.row_block == 1 else 4
        return divisor(self.rows, min(limit, self.accumulators))

    @property
    def few_rows(self) -> int:
        """Rows of which maxima are found together; one where memory is asked for meanwhile, which
        gets more done at a steady pace (f32 in 9.0 to 9.6 ms for 9.9)."""
        return 1 if self.as_they_lie else min(FEW_ROWS, self.rows & -self.rows)

    @property
    def as_they_lie(self) -> bool:
        """Whether decode reads keys and values in the order of memory, which then brings them
        without being asked: where registers keep all components of the sums of two rows."""
        whole = self.cache.head_dim // KEY_BLOCK
        if self.row_block > 1 or self.staged or self.folded or self.accumulators < 2 * whole:
            return False
        return self.own is None or self.own.values == whole

    @property
    def key_vectors(self) -> int:
        """16-key vectors of a register tile of S."""
        if self.own is not None:
            return self.own.keys
        if self.as_they_lie:
            return 1
        limit = self.accumulators // self.row_tile
        return divisor(self.key_block // KEY_BLOCK, min(limit, 8))

    @property
    def value_rows(self) -> int:
        """Rows of a register tile of O."""
        if not self.as_they_lie:
            return self.row_tile
        return divisor(self.row_tile, self.accumulators // self.value_vectors)

    @property
    def value_vectors(self) -> int:
        """16-component vectors of a register tile of O."""
        if self.own is not None:
            return self.own.values
        if self.as_they_lie:
            return self.cache.head_dim // KEY_BLOCK
        limit = self.accumulators // self.row_tile
        return divisor(self.cache.head_dim // KEY_BLOCK, min(limit, 8))

    @property
    def near_block(self) -> int:
        """The keys of a block that memory should bring at a time, of those that one may have; all
        where blocks lie apart."""
        if self.apart or not self.as_they_lie:
            return self.key_block
        keys = BLOCK_BYTES // (self.cache.head_dim * self.cache.element_bytes)
        return min(self.key_block, max(KEY_BLOCK, 1 << keys.bit_length() - 1))

    @property
    def strip(self) -> int:
        """Values that decode reads side by side."""
        size = 2 * STRIP_BYTES if self.as_they_lie else STRIP_BYTES
        keys = size // (self.cache.head_dim * self.cache.element_bytes)
        return min(16, max(4, 1 << keys.bit_length() - 1))

    @property
    def parts(self) -> dict[str, int]:
        """Name -> elements, in the order in which they lie."""
        width, staged = self.cache.head_dim, self.key_block * self.cache.head_dim
        folded = self.rows if self.folded else 0
        return {
            "q": self.rows * width,
            "o": self.rows * width,
            "s": self.rows * self.key_block,
            "l": self.rows * KEY_BLOCK,
            "m": self.rows,
            "alpha": self.rows,
            "k": staged if self.staged else 0,
            "v": staged if self.staged else 0,
            "folded_q": folded * width,
            "folded_s": folded * self.key_block,
            "offset": folded,
            "step": folded,
        }

    def offset(self, part: str) -> int:
        """First element of a part; each part starts at a multiple of 16."""
        names = list(self.parts)
        before = [self.parts[name] for name in names[: names.index(part)]]
        return sum(-(-size // 16) * 16 for size in before)

    @property
    def scratch(self) -> int:
        """Elements that one thread needs."""
        return self.offset("step") + self.parts["step"]
