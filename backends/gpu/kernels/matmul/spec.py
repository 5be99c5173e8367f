"""What a product's kernel is made for, and how its work is divided."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.rows.planes import PlanesSpec
from nybble.backends.gpu.kernels.rows.quantize import QuantizeSpec
from nybble.backends.gpu.packing.fields import FloatType
from nybble.backends.gpu.packing.kind import Line, WeightKind
from nybble.backends.gpu.packing.stream import LANES, LOAD, StreamLayout

FLOAT_BYTES = {"f16": 2, "bf16": 2, "f32": 4}
TOKEN_TILE = 8
"""Tokens of one `mma`."""
QUAD_BYTES = LANES * LOAD
"""Of four sums of every lane."""
MOST_TILES = 8
"""Tiles of tokens of a pass, at most."""
MOST_SUMS = {False: 8, True: 24}
"""Fragments times tiles of tokens that registers have room for, by whether fragments are scaled."""
FEWEST_STAGES = 3
"""Of which one is read while the others are under way."""
Quantized = QuantizeSpec | PlanesSpec


@dataclass(frozen=True)
class Tuning:
    """What changes the speed of a product and never its result, within rounding.

    warps: of a block. split: how many of them share a tile of rows, each with columns of its own;
    less if the steps of a tile or its sums are no multiple. stages: records of each warp that are
    read or under way, at most. fragments: of 16 rows of a tile, 0 for those that weights are packed
    in unless told otherwise. blocks_per_sm: resident blocks. evict_first: whether weights that are
    read once leave the second-level cache early. subtract: whether codes lose their offset before
    they are multiplied, and not sums. prefetch: whether a record's activations are loaded before
    its weights are waited for. scale: whether fragments are scaled, and not sums of groups; this
    rounds weights to the activations' type. Weights without scales are always final so.
    """

    warps: int = 16
    split: int = 1
    stages: int = 4
    fragments: int = 0
    blocks_per_sm: int = 1
    evict_first: bool = False
    subtract: bool = False
    prefetch: bool = False
    scale: bool = False


@dataclass(frozen=True)
class Epilogue:
    """What is done to products before they are written.

    gate: the activation of a gated unit, empty for none. Then the rows of the weight are those of
    the gate and of the other factor, 16 of each in turn, and `rows` is how many results a token
    has. residual: whether a matrix of the shape and type of the results is added.
    """

    gate: str = ""
    rows: int = 0
    residual: bool = False


PLAIN = Epilogue()
"""Products and no more."""


@dataclass(frozen=True)
class StreamSpec(ABC):
    """y [tokens, rows] = x [tokens, cols] @ W.T: what kernels of streamed weights have in common.

    output: the type of y. epilogue: what y has beyond products.
    """

    layout: StreamLayout
    kind: WeightKind
    tokens: int
    arch: Arch
    output: str
    tuning: Tuning
    epilogue: Epilogue = field(default=PLAIN, kw_only=True)

    @property
    def features(self) -> int:
        """Results of a token."""
        return self.epilogue.rows or self.layout.rows

    @property
    @abstractmethod
    def activations(self) -> str:
        """What is multiplied, as `select-dataflow` names it."""

    @property
    @abstractmethod
    def most_sums(self) -> int:
        """Fragments times tiles of tokens that registers have room for."""

    @property
    @abstractmethod
    def effort(self) -> float:
        """The time of a product on tensor cores, of that of one of 16-bit floats."""

    @property
    def products(self) -> int:
        """Multiply-adds of 16-bit floats of a multiprocessor in a cycle."""
        return self.arch.products

    @abstractmethod
    def token_bytes(self, columns: int) -> int:
        """Bytes of so many columns of a token."""

    @property
    @abstractmethod
    def lane_bytes(self) -> int:
        """Bytes from the activations of one of four lanes to those of the next."""

    @property
    def inputs(self) -> tuple[Parameter, ...]:
        """The parameters that hold activations; the first begins with the columns of a token.

        By default what the quantization leaves, which then there must be.
        """
        made = self.quantized
        assert made is not None
        return tuple(Parameter(one.name, one.dtype, Access.READ, one.bytes) for one in made.results)

    @property
    def quantized(self) -> Quantized | None:
        """The quantization that leaves activations as the kernel reads them, if one does."""
        return None

    @property
    def most_tiles(self) -> int:
        """Tiles of tokens of a pass, at most."""
        return MOST_TILES

    @cached_property
    def passes(self) -> int:
        """How often all weights are read, each time for a part of the tokens."""
        room = self.most_sums // self.layout.placement.fragments
        return -(-self.tokens // (max(1, min(self.most_tiles, room)) * TOKEN_TILE))

    @cached_property
    def token_tiles(self) -> int:
        """Tiles of 8 tokens of a pass."""
        return -(-self.tokens // (self.passes * TOKEN_TILE))

    @property
    def pass_tokens(self) -> int:
        """Tokens of a pass; the last may have some that are not."""
        return self.token_tiles * TOKEN_TILE

    def is_full(self, token_tile: int) -> bool:
        """Whether all tokens of a tile exist, in every pass."""
        last = (self.passes - 1) * self.pass_tokens + (token_tile + 1) * TOKEN_TILE
        return last <= self.tokens

    @property
    def block_tiles(self) -> int:
        """Tiles of rows that the warps of a block multiply side by side."""
        return self.tuning.warps // self.tuning.split

    @property
    def row_blocks(self) -> int:
        """Blocks of so many tiles."""
        return -(-self.layout.tiles // self.block_tiles)

    @property
    def steps(self) -> int:
        """Steps of a block of threads along the columns: a record for each warp."""
        return self.layout.steps // self.tuning.split

    @property
    def jobs(self) -> int:
        """Row blocks of all passes."""
        return self.passes * self.row_blocks

    @property
    def work(self) -> int:
        """Steps of all jobs; blocks of threads divide them evenly, in order."""
        return self.jobs * self.steps

    @property
    def blocks(self) -> int:
        """Blocks of threads: as many as the board runs at once, if there is work for them."""
        return min(self.arch.board.sms * self.tuning.blocks_per_sm, self.work)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return LANES * self.tuning.warps

    @property
    def ring_start(self) -> int:
        """Where the records of all warps begin in shared memory."""
        return 0

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block: the rings of all warps, then their sums."""
        return self.ring_bytes + self.exchange_bytes

    @property
    def ring_bytes(self) -> int:
        """Bytes of the records of all warps."""
        return self.tuning.warps * self.tuning.stages * self.layout.record_bytes

    @property
    def exchange_bytes(self) -> int:
        """Bytes of the sums that warps with the same rows give each other."""
        return self.tuning.warps * self.quads * QUAD_BYTES if self.tuning.split > 1 else 0

    @property
    def quads(self) -> int:
        """How many times four sums a lane has."""
        return self.layout.placement.fragments * self.token_tiles

    @property
    def own_quads(self) -> int:
        """How many of them it adds up, of all warps with the same rows."""
        return -(-self.quads // self.tuning.split)

    @property
    def parts(self) -> list[list[int]]:
        """The quads of a warp, in parts that are added up and written one after the other."""
        return [[*range(self.own_quads)]]

    @property
    def partial_bytes(self) -> int:
        """Bytes of the sums that one warp leaves for other blocks."""
        return self.own_quads * QUAD_BYTES

    def fitted(self) -> Self:
        """The spec with as many warps and stages as shared memory has room for."""
        tuning, layout = self.tuning, self.layout
        split = tuning.split
        while layout.steps % split or self.quads % -(-self.quads // split):
            split //= 2
        exchanged = self.quads * QUAD_BYTES if split > 1 else 0
        room = self.arch.shared // tuning.blocks_per_sm
        warps = tuning.warps
        while warps > split and warps * (FEWEST_STAGES * layout.record_bytes + exchanged) > room:
            warps -= split
        stages = min(tuning.stages, (room // warps - exchanged) // layout.record_bytes)
        return replace(self, tuning=replace(tuning, warps=warps, split=split, stages=stages))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Activations, w, what is added, y, and what blocks leave each other: sums, and how many
        are there."""
        layout, tuning = self.layout, self.tuning
        y_bytes = self.tokens * self.features * FLOAT_BYTES[self.output]
        residual = Parameter("residual", self.output, Access.READ, y_bytes)
        sums = 2 * self.blocks * tuning.warps * self.partial_bytes
        counters = 4 * self.jobs * tuning.warps
        return (
            *self.inputs,
            Parameter("w", "u8", Access.READ, layout.bytes),
            *((residual,) if self.epilogue.residual else ()),
            Parameter("y", self.output, Access.WRITE, y_bytes),
            Parameter("sums", "f32", Access.WRITE, sums),
            Parameter("counters", "i32", Access.UPDATE, counters),
        )


@dataclass(frozen=True)
class FlatSpec(StreamSpec):
    """Activations are 16-bit floats, of type `half`, and weights become such."""

    half: FloatType = "f16"

    @property
    def activations(self) -> str:
        """See StreamSpec."""
        return self.half

    @property
    def most_sums(self) -> int:
        """See StreamSpec."""
        return MOST_SUMS[self.tuning.scale]

    @property
    def effort(self) -> float:
        """See StreamSpec."""
        return 1.0

    def token_bytes(self, columns: int) -> int:
        """See StreamSpec."""
        return 2 * columns

    @property
    def lane_bytes(self) -> int:
        """See StreamSpec."""
        return LOAD if self.layout.run_columns == 32 else LOAD // 2

    @property
    def inputs(self) -> tuple[Parameter, ...]:
        """See StreamSpec: x, row by row."""
        size = self.tokens * self.token_bytes(self.layout.cols)
        return (Parameter("x", self.half, Access.READ, size),)

    @property
    def has_totals(self) -> bool:
        """Whether sums of activations are needed."""
        if self.tuning.scale:
            return False
        is_line = isinstance(self.kind.meaning, Line)
        return self.layout.zero == "minimum" or (is_line and not self.tuning.subtract)
