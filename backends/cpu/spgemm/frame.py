"""What a kernel of sparse rows works with: its arguments by name, and memory of its thread.

The memory of all threads is one arena; a table of i64, `plan`, says where the parts of a thread's
share begin and what the limits are, so that one compiled kernel serves matrices of all sizes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Attribute

from nybble.backends.cpu.kernels.buffers import Buffer, BufferSpec
from nybble.backends.cpu.kernels.builder import KernelBuilder, Operand, Value, i8, i64
from nybble.backends.cpu.spgemm.spec import ANY, Arithmetic, Spec
from nybble.backends.cpu.spgemm.turns import Turns

LINE = 64  # bytes: parts of the arena begin on cache lines
PAD = 128  # elements that vectors may write past the end of a part
RADIX_BITS = 8
RADIX = 1 << RADIX_BITS
SHORT_BITS = 6
SHORT = 1 << SHORT_BITS
"""The most products of a row that are sorted by rank."""

PLAN = (
    "stride",  # bytes of a thread's share of the arena
    "columns",  # of the right operand
    "last_entry",  # of the left operand
    "drained",  # a window of at most so many columns for each product is drained in order
    "short",  # rows of at most so many products are sorted and merged
    "window",  # the widest window of columns that is accumulated in place
    "sums",  # offsets of the parts, in bytes
    "flags",
    "keys",
    "table",
    "list",
    "other",
    "counts",
)
"""The cells of the plan, in order."""


@dataclass(frozen=True)
class Limits:
    """Which rows are accumulated how, see PLAN: columns, and products of a row. room, work: the
    most entries, and products or what costs as much, of rows that a thread takes together.
    """

    drained: int = 64
    short: int = 64
    window: int = 1 << 17
    room: int = 1 << 13
    work: int = 1 << 14


@dataclass(frozen=True)
class Sizes:
    """What the largest rows of a product need.

    columns: of the right operand; entries: of the left; products: the most of one row.
    """

    columns: int
    entries: int
    products: int

    def plan(self, spec: Spec, limits: Limits) -> tuple[NDArray[np.int64], int]:
        """The table, and the bytes of a thread's share of the arena."""
        window = min(self.columns, limits.window)
        if self.products <= limits.short:
            window = min(window, limits.drained * self.products)
        unique = min(self.products, self.columns)
        index, value = spec.index_bits // 8, spec.sum_bytes
        room = max(unique, SHORT) + PAD
        # A row in a window needs no table.
        slots = table_slots(unique) if self.columns > window else room
        parts = {
            "sums": (window + PAD) * value,
            "flags": window + PAD,
            "keys": slots * index,
            "table": slots * value,
            "list": room * index,
            "other": room * index,
            "counts": 2 * RADIX * 8,
        }
        cells = dict.fromkeys(PLAN, 0) | {
            "columns": self.columns,
            "last_entry": max(0, self.entries - 1),
            "drained": limits.drained,
            "short": min(limits.short, SHORT),
            "window": window,
        }
        for name, size in parts.items():
            cells[name] = cells["stride"]
            cells["stride"] += -(-size // LINE) * LINE
        table = np.array(list(cells.values()), np.int64)
        return table, cells["stride"]


def fronts() -> NDArray[np.uint8]:
    """u8 [256, 8]: of each byte the numbers of its set bits, then the others."""
    return _front_of(8)


def pairs() -> NDArray[np.uint8]:
    """u8 [16, 8]: the same of each four bits, for lanes of two words."""
    return (2 * _front_of(4)[:, :, None] + np.arange(2, dtype=np.uint8)).reshape(16, 8)


def _front_of(lanes: int) -> NDArray[np.uint8]:
    bits = np.arange(1 << lanes)[:, None] >> np.arange(lanes) & 1
    return np.argsort(1 - bits, axis=1, kind="stable").astype(np.uint8)


def table_slots(unique: int) -> int:
    """Slots of a hash table for so many keys: a power of two, at most half of it taken."""
    return max(16, 1 << (2 * unique - 1).bit_length())


@dataclass(frozen=True)
class Frame:
    """A kernel being built over rows of A times B."""

    b: KernelBuilder
    spec: Spec
    permute: str | None = None
    """The intrinsic that permutes eight words, if there is one."""

    @staticmethod
    def operand(spec: Spec, name: str) -> list[BufferSpec]:
        """A sparse operand."""
        places = [spec.indices(f"{name}_start"), spec.indices(f"{name}_index")]
        return [*places, spec.values(f"{name}_value")]

    @staticmethod
    def operands(spec: Spec) -> list[BufferSpec]:
        """A and B."""
        return [*Frame.operand(spec, "a"), *Frame.operand(spec, "b")]

    @staticmethod
    def buffers(spec: Spec) -> list[BufferSpec]:
        """Operands; what `Turns` needs; tables and arena."""
        return [
            *Frame.operands(spec),
            *Turns.buffers(spec),
            BufferSpec("fronts", ANY, i8),
            BufferSpec("pairs", ANY, i8),
            BufferSpec("plan", len(PLAN), i64),
            BufferSpec("arena", ANY, i8),
        ]

    @cached_property
    def turns(self) -> Turns:
        """How rows are shared."""
        return Turns(self.b, self.spec)

    @cached_property
    def ring(self) -> Arithmetic:
        """The semiring."""
        return Arithmetic(self.b, self.spec)

    def __getitem__(self, name: str) -> Buffer:
        return self.b.buffer(name)

    def index_at(self, name: str, position: Operand) -> Value:
        """An element of a buffer of integers, as an index."""
        return self.b.to_index(self[name].load(position))

    def limit(self, name: str) -> Value:
        """A cell of the plan."""
        return self.index_at("plan", PLAN.index(name))

    def part(self, name: str, dtype: Attribute) -> Buffer:
        """A part of this thread's share of the arena."""
        offset = self.b.tid * self.limit("stride") + self.limit(name)
        return self["arena"].view(dtype, offset, ANY // 16)

    def row(self, k: Value) -> tuple[Value, Value]:
        """First and last (past the end) entry of a row of B."""
        return self.index_at("b_start", k), self.index_at("b_start", k + 1)
