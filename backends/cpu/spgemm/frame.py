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

LINE = 64  # bytes: parts of the arena begin on cache lines
PAD = 64  # elements that vectors may write past the end of a part
RADIX = 256

PLAN = (
    "stride",  # bytes of a thread's share of the arena
    "columns",  # of the right operand
    "merge_entries",  # rows of up to so many entries are merged
    "dense_width",  # the widest window of columns that is accumulated in place
    "dense_ratio",  # and only if it has at most so many columns for each product
    "cursor",  # offsets of the parts, in bytes
    "sums",
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
    """Which rows are accumulated how; see PLAN."""

    merge_entries: int = 2
    dense_width: int = 1 << 16
    dense_ratio: int = 256


@dataclass(frozen=True)
class Sizes:
    """What the largest rows of a product need.

    columns: of the right operand; products: the most of one row; threads: how many shares.
    """

    columns: int
    products: int
    threads: int

    def plan(self, spec: Spec, limits: Limits) -> tuple[NDArray[np.int64], int]:
        """The table, and the bytes of the arena."""
        width = min(self.columns, limits.dense_width) + PAD
        unique = min(self.products, self.columns)
        slots = table_slots(unique)
        index, value = spec.index_bits // 8, spec.sum_bytes
        room = max(unique, min(self.products, limits.merge_entries * self.columns)) + PAD
        parts = {
            "cursor": LINE,
            "sums": max(width, room) * value,
            "flags": width,
            "keys": max(slots, room) * index,
            "table": max(slots, room) * value,
            "list": room * index,
            "other": room * index,
            "counts": RADIX * 8,
        }
        cells = dict.fromkeys(PLAN, 0) | {
            "columns": self.columns,
            "merge_entries": limits.merge_entries,
            "dense_width": limits.dense_width,
            "dense_ratio": limits.dense_ratio,
        }
        for name, size in parts.items():
            cells[name] = cells["stride"]
            cells["stride"] += -(-size // LINE) * LINE
        table = np.array(list(cells.values()), np.int64)
        return table, cells["stride"] * self.threads


def table_slots(unique: int) -> int:
    """Slots of a hash table for so many keys: a power of two, at most half of it taken."""
    return max(16, 1 << (2 * unique - 1).bit_length())


OPERANDS = ("a_start", "a_index", "a_value", "b_start", "b_index", "b_value")


@dataclass(frozen=True)
class Frame:
    """A kernel being built over rows of A times B."""

    b: KernelBuilder
    spec: Spec

    @staticmethod
    def buffers(spec: Spec) -> list[BufferSpec]:
        """Operands; rows of each thread, its first place in the result; the result; plan; arena."""
        starts = [spec.indices("a_start"), spec.indices("a_index"), spec.values("a_value")]
        right = [spec.indices("b_start"), spec.indices("b_index"), spec.values("b_value")]
        shares = [BufferSpec("rows", ANY, i64), BufferSpec("places", ANY, i64)]
        result = [BufferSpec("counts", ANY, i64), spec.indices("c_index"), spec.sums("c_value")]
        return [
            *starts,
            *right,
            *shares,
            *result,
            BufferSpec("plan", len(PLAN), i64),
            BufferSpec("arena", ANY, i8),
        ]

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
