"""Processes: each runs on its own, reads words of streams or of memory and writes others."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import I64, IntegerAttr, f32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import (
    BaseAttr,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    opt_result_def,
    prop_def,
    result_def,
    var_operand_def,
)
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.attrs import LARGEST_ACTIVATION, TilingAttr
from nybble.dialects.fpga.types import MemoryType, StreamType, bits_for, signed, unsigned
from nybble.dialects.fpga.words import U8, Integers, from_words
from nybble.dialects.numpy_ref.quantize import bipolar_rows, quantize_rows

F32 = npt.NDArray[np.float32]
FLOATS = 16
"""Floats in a word of activations."""


class ProcessOp(IRDLOperation, ABC):
    """A process. The types of its streams, and how long it takes, follow from its attributes."""

    def taken(self) -> Sequence[StreamType]:
        """The types of the streams that it reads; depths do not matter."""
        return ()

    @abstractmethod
    def made(self) -> Sequence[StreamType]:
        """The types of the streams that it writes; depths do not matter."""

    @abstractmethod
    def cycles(self) -> int:
        """Iterations of its loops, one of which starts in each cycle."""

    def leads(self) -> Sequence[int]:
        """Words of each stream that it reads before it writes its first one."""
        return (1,) * len(self.streams)

    def tail(self) -> int:
        """Iterations that are left when the last word has been read."""
        return 0

    def idle(self) -> int:
        """Iterations that are left when the last word has been written."""
        return 0

    @property
    def written(self) -> Sequence[SSAValue]:
        """The memories that it writes."""
        return ()

    @property
    def read(self) -> Sequence[SSAValue]:
        """The memories that it reads."""
        memories = (one for one in self.operands if isinstance(one.type, MemoryType))
        return [one for one in memories if one not in self.written]

    @property
    def streams(self) -> list[SSAValue]:
        """The operands that are streams."""
        return [one for one in self.operands if isinstance(one.type, StreamType)]

    def verify_(self) -> None:
        _check_streams("operand", self.streams, self.taken())
        _check_streams("result", self.results, self.made())


def _check_streams(kind: str, found: Sequence[SSAValue], wanted: Sequence[StreamType]) -> None:
    if len(found) != len(wanted):
        raise VerifyException(f"{len(wanted)} {kind} streams are needed, got {len(found)}")
    for index, (value, other) in enumerate(zip(found, wanted, strict=True)):
        type_ = value.type
        assert isinstance(type_, StreamType)
        if type_.with_depth(other.depth.data) != other:
            raise VerifyException(f"{kind} stream {index} must be {other}, got {type_}")


class TiledOp(ProcessOp, ABC):
    """A process of a product that is cut in tiles."""

    tiling = prop_def(TilingAttr)


def row_words(cols: int) -> int:
    """Words of memory that a row of activations takes."""
    return -(-cols // FLOATS)


@irdl_op_definition
class QuantizeOp(TiledOp):
    """Rows of f32 to integers with a scale for each row, column by column, padded.

    They have 8 bits and a sign, or are bipolar integers of `planes` bits, given by their codes.

    memory: for each token `row_words` words of 16 floats, or a stream of rows in words whose lanes
    divide them. columns: a word for each place of a column, an integer for each of `wide` tokens,
    for each pass. scales: a word for each pass. totals: the sum of each group's integers, where
    somebody needs it.
    """

    name = "fpga.quantize"
    memory = operand_def(BaseAttr(MemoryType) | BaseAttr(StreamType))
    columns = result_def(StreamType)
    scales = result_def(StreamType)
    totals = opt_result_def(StreamType)
    planes = opt_prop_def(IntegerAttr[I64])
    assembly_format = (
        "$memory (`planes` $planes^)? `tiling` $tiling attr-dict `:` type($memory) `->` "
        "type($columns) `,` type($scales) (`totals` type($totals)^)?"
    )

    def __init__(self, memory: SSAValue, tiling: TilingAttr, totals: bool = False, planes: int = 0):
        added = total_stream(tiling) if totals else None
        results = [column_stream(tiling, planes), scale_stream(tiling), added]
        number = IntegerAttr(planes, i64) if planes else None
        super().__init__(
            operands=[memory],
            result_types=results,
            properties={"tiling": tiling, "planes": number},
        )

    @property
    def bipolar(self) -> int:
        """Bits of bipolar integers; 0 for others."""
        return 0 if self.planes is None else self.planes.value.data

    @property
    def lanes(self) -> int:
        """Floats of a word that it reads."""
        return self.memory.type.lanes.data if isinstance(self.memory.type, StreamType) else FLOATS

    @property
    def row(self) -> int:
        """Words of a row."""
        return -(-self.tiling.cols.data // self.lanes)

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        words = self.tiling.tokens.data * self.tiling.cols.data // self.lanes
        return (StreamType.get(words, self.lanes, f32),) if self.streams else ()

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        plain = column_stream(self.tiling, self.bipolar), scale_stream(self.tiling)
        return plain if self.totals is None else (*plain, total_stream(self.tiling))

    def cycles(self) -> int:
        """See `ProcessOp`: a row is read whole before its first integer is known."""
        tiling = self.tiling
        return tiling.passes * (tiling.wide.data * self.row + tiling.tiles * tiling.tile)

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`."""
        return (self.tiling.wide.data * self.row,) if self.streams else ()

    def tail(self) -> int:
        """See `ProcessOp`."""
        return self.tiling.tiles * self.tiling.tile

    def verify_(self) -> None:
        if self.bipolar and self.totals is not None:
            raise VerifyException("totals of bipolar integers")
        tiling, memory = self.tiling, self.memory.type
        if isinstance(memory, StreamType) and tiling.cols.data % self.lanes:
            raise VerifyException(f"words of {self.lanes} do not divide {tiling.cols.data} columns")
        super().verify_()
        wanted = MemoryType.get(tiling.tokens.data * row_words(tiling.cols.data), 32 * FLOATS)
        if isinstance(memory, MemoryType) and memory != wanted:
            raise VerifyException(f"the memory of activations must be {wanted}, got {memory}")

    def rounded(self, x: F32) -> tuple[Integers, F32]:
        """Integers or codes [tokens, cols] and scales [tokens] of x [tokens, cols]."""
        if self.bipolar:
            return bipolar_rows(x, self.bipolar)
        found = quantize_rows(x, x.shape[1])
        return found.q.astype(np.int64), found.s[:, 0]

    def reference(self, memory: U8 | F32) -> tuple[Integers | F32, ...]:
        """memory: u8 [words, 64], or f32 [words, lanes] of a stream.

        Rows that are not finite are all zeros with a scale that is not finite.
        """
        tiling = self.tiling
        tokens, cols, wide = tiling.tokens.data, tiling.cols.data, tiling.wide.data
        x = memory.reshape(-1).view(np.float32).reshape(tokens, -1)[:, :cols]
        padded = np.zeros((tiling.passes * wide, cols), np.float32)
        padded[:tokens] = x
        integers, scales = self.rounded(padded)
        places = tiling.columns().reshape(-1)
        placed = np.where(places >= 0, integers[:, np.maximum(places, 0)], 0)
        words = placed.reshape(tiling.passes, wide, -1).transpose(0, 2, 1)
        made = words.reshape(-1, wide), scales.reshape(-1, wide)
        if self.totals is None:
            return made
        whole = words.reshape(tiling.passes * tiling.groups, -1, wide)
        return (*made, whole.sum(axis=1))


def column_stream(tiling: TilingAttr, planes: int = 0) -> StreamType:
    """Integers of activations, or codes of bipolar ones, a word for each place of a column."""
    words = tiling.passes * tiling.tiles * tiling.tile
    return StreamType.get(words, tiling.wide.data, unsigned(planes) if planes else signed(8))


def total_stream(tiling: TilingAttr) -> StreamType:
    """Sums of a group's integers, a word for each group, some of which wait for their dots."""
    most = tiling.group.data * LARGEST_ACTIVATION
    return StreamType.get(
        tiling.passes * tiling.groups, tiling.wide.data, signed(bits_for(-most, most)), 16
    )


def scale_stream(tiling: TilingAttr) -> StreamType:
    """Scales of activations, a word for each pass."""
    return StreamType.get(tiling.passes, tiling.wide.data, f32)


@irdl_op_definition
class ReadOp(ProcessOp):
    """Words of memory to a stream, all of them `repeat` times.

    The fields of a word of the stream lie in all memories, `share` of them in each but the last.
    """

    name = "fpga.read"
    memories = var_operand_def(MemoryType)
    stream = result_def(StreamType)
    repeat = prop_def(IntegerAttr[I64])
    assembly_format = "$memories `repeat` $repeat attr-dict `:` type($memories) `->` type($stream)"

    def __init__(self, memories: Sequence[SSAValue], repeat: int, stream: StreamType):
        super().__init__(
            operands=[memories],
            result_types=[stream],
            properties={"repeat": IntegerAttr(repeat, i64)},
        )

    @property
    def type(self) -> StreamType:
        """The type of the stream."""
        assert isinstance(self.stream.type, StreamType)
        return self.stream.type

    @property
    def share(self) -> int:
        """Fields of a word that lie in the first memory."""
        return -(-self.type.lanes.data // len(self.memories))

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        words = self.repeat.value.data * memory_type(self.memories[0]).words.data
        return (StreamType.get(words, self.type.lanes.data, self.type.element),)

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return self.type.words.data

    def verify_(self) -> None:
        if not self.memories:
            raise VerifyException("a process that reads needs a memory")
        super().verify_()
        first, bits = memory_type(self.memories[0]), self.share * self.type.element_bits
        for memory in self.memories:
            if memory.type != first:
                raise VerifyException(f"memories of one stream must be {first}, got {memory.type}")
        if first.bits.data < bits:
            raise VerifyException(f"{bits} bits of a stream's word do not fit {first}")

    def reference(self, *memories: U8) -> tuple[npt.NDArray[Any]]:
        """memories: u8 [words, bits / 8] each."""
        fields = decoded(memories, self.type, self.share)
        return (np.concatenate([fields] * self.repeat.value.data),)


def memory_type(value: SSAValue) -> MemoryType:
    """The type of a memory."""
    assert isinstance(value.type, MemoryType)
    return value.type


def decoded(memories: Sequence[U8], type_: StreamType, share: int) -> Integers | F32:
    """The fields of a stream, [words, lanes], that lie in memories, `share` in each."""
    lanes = type_.lanes.data
    parts = [
        from_words(memory, type_.element_bits, min(share, lanes - share * index))
        for index, memory in enumerate(memories)
    ]
    fields = np.concatenate(parts, axis=1)
    if type_.is_float:
        return fields.astype(np.uint32).view(np.float32)
    half = 1 << (type_.element_bits - 1)
    return (fields ^ half) - half if type_.is_signed else fields


@irdl_op_definition
class WriteOp(ProcessOp):
    """Words of a stream of floats to memory."""

    name = "fpga.write"
    stream = operand_def(StreamType)
    memory = operand_def(MemoryType)
    assembly_format = "$stream `,` $memory attr-dict `:` type($stream) `,` type($memory)"

    def __init__(self, stream: SSAValue, memory: SSAValue):
        super().__init__(operands=[stream, memory])

    @property
    def type(self) -> StreamType:
        """The type of the stream."""
        assert isinstance(self.stream.type, StreamType)
        return self.stream.type

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        words = memory_type(self.memory).words.data
        return (StreamType.get(words, self.type.lanes.data, f32),)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return ()

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return self.type.words.data

    @property
    def written(self) -> Sequence[SSAValue]:
        """See `ProcessOp`."""
        return (self.memory,)

    def verify_(self) -> None:
        super().verify_()
        memory = memory_type(self.memory)
        if memory.bits.data < self.type.word_bits:
            raise VerifyException(f"{self.type.word_bits} bits of a word do not fit {memory}")

    def reference(self, stream: F32, memory: U8) -> tuple[()]:
        """Fills `memory`, u8 [words, bits / 8], which is what comes out."""
        memory[:] = 0
        memory[:, : 4 * stream.shape[1]] = np.ascontiguousarray(stream, np.float32).view(np.uint8)
        return ()
