"""What a product's kernel is made for, and how its work is divided."""

from dataclasses import dataclass

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.packing.kind import WeightKind
from nybble.backends.gpu.packing.stream import StreamLayout

FLOAT_BYTES = {"f16": 2, "bf16": 2, "f32": 4}


@dataclass(frozen=True)
class Tuning:
    """What changes the speed of a product and never its result, within rounding.

    warps: of a block; each has a tile of rows of its own. stages: records of each warp that are
    read or under way. blocks_per_sm: resident blocks. evict_first: whether weights leave the
    second-level cache early.
    """

    warps: int = 16
    stages: int = 4
    blocks_per_sm: int = 1
    evict_first: bool = True


@dataclass(frozen=True)
class FlatSpec:
    """y [tokens, rows] = x [tokens, cols] @ W.T, of few tokens."""

    layout: StreamLayout
    kind: WeightKind
    tokens: int
    arch: Arch
    activations: str
    output: str
    tuning: Tuning

    @property
    def token_tiles(self) -> int:
        """Tiles of 8 tokens."""
        return -(-self.tokens // 8)

    @property
    def row_blocks(self) -> int:
        """Blocks of rows that the warps of a block multiply side by side."""
        return -(-self.layout.tiles // self.tuning.warps)

    @property
    def work(self) -> int:
        """Steps of all row blocks; blocks of threads divide them evenly, in order."""
        return self.row_blocks * self.layout.steps

    @property
    def blocks(self) -> int:
        """Blocks of threads: as many as the board runs at once, if there is work for them."""
        return min(self.arch.board.sms * self.tuning.blocks_per_sm, self.work)

    @property
    def slot_bytes(self) -> int:
        """Shared memory of a record."""
        return self.layout.record_bytes

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        return self.tuning.warps * self.tuning.stages * self.slot_bytes

    @property
    def partial_bytes(self) -> int:
        """Bytes of the sums of one warp."""
        return self.layout.placement.fragments * self.token_tiles * 32 * 16

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """x, w, y, and what blocks leave each other: sums, and how many are there."""
        layout, tuning = self.layout, self.tuning
        x_bytes = self.tokens * layout.cols * FLOAT_BYTES[self.activations]
        y_bytes = self.tokens * layout.rows * FLOAT_BYTES[self.output]
        sums = 2 * self.blocks * tuning.warps * self.partial_bytes
        return (
            Parameter("x", self.activations, Access.READ, x_bytes),
            Parameter("w", "u8", Access.READ, layout.bytes),
            Parameter("y", self.output, Access.WRITE, y_bytes),
            Parameter("sums", "f32", Access.WRITE, sums),
            Parameter("counters", "i32", Access.UPDATE, 4 * layout.tiles),
        )
