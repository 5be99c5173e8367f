"""A kernel of operators on rows that is being built: what its memories hold, what streams carry."""

from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType
from xdsl.ir import Operation, SSAValue

from nybble.backends.fpga.bindings import Binding
from nybble.backends.fpga.builder import Builder
from nybble.backends.fpga.design import Design
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.caches import POSITION
from nybble.dialects.fpga.processes import ReadOp
from nybble.dialects.fpga.rows import RegroupOp, row_stream, stream_type
from nybble.dialects.fpga.types import MemoryType
from nybble.dialects.sparse_attn.ops import AppendKVOp


class Rows(Builder):
    """A kernel of operators on rows.

    lanes: columns of a word. values: IR value -> its stream. appended: what `append_kv` gives ->
    the operation. bindings: what each memory is, in the order of the kernel's arguments.
    """

    def __init__(self, name: str, device: str, lanes: int) -> None:
        super().__init__(name, device)
        self.lanes = lanes
        self.values: dict[SSAValue, SSAValue] = {}
        self.designs: dict[SSAValue, Design] = {}
        self.appended: dict[SSAValue, AppendKVOp] = {}
        self.caches: dict[SSAValue, SSAValue] = {}
        self.bindings: list[Binding] = []

    def input(self, value: SSAValue, name: str, type_: MemoryType, how: str) -> SSAValue:
        """A memory that holds an argument of the region, laid out as `how` says."""
        memory = self.memory(name, type_)
        self.bindings.append(Binding(how, index_of(value), (name_of(memory),), self.lanes))
        return memory

    def rows(self, value: SSAValue) -> SSAValue:
        """The stream of a value's rows; an argument is read from memory first."""
        if value not in self.values:
            rows, columns = shape_of(value)
            words = rows * columns // self.lanes
            type_ = MemoryType.get(words, 32 * self.lanes)
            memory = self.input(value, value.name_hint or "x", type_, "rows")
            read = ReadOp([memory], 1, row_stream(words, self.lanes))
            self.values[value] = self.add(read, name_of(memory)).stream
        found = self.values[value]
        if stream_type(found).lanes.data != self.lanes:
            _, columns = shape_of(value)
            found = self.add(RegroupOp(found, columns, self.lanes), "row").result
            self.values[value] = found
        return found

    def vector(self, value: SSAValue, repeat: int) -> SSAValue:
        """A vector of an argument, again and again."""
        (length,) = known_shape(value)
        words = length // self.lanes
        type_ = MemoryType.get(words, 32 * self.lanes)
        memory = self.input(value, value.name_hint or "g", type_, "rows")
        read = ReadOp([memory], repeat, row_stream(words * repeat, self.lanes))
        return self.add(read, name_of(memory)).stream

    def position(self, value: SSAValue) -> SSAValue:
        """The stream of a position."""
        if value not in self.values:
            memory = self.input(value, "position", MemoryType.get(1, 32), "position")
            self.values[value] = self.add(ReadOp([memory], 1, POSITION), "position").stream
        return self.values[value]


def name_of(memory: SSAValue) -> str:
    """What a memory is called."""
    assert memory.name_hint is not None
    return memory.name_hint


def index_of(value: SSAValue) -> int:
    """The number of an argument of a region; NybbleError for what is computed in it."""
    if isinstance(value.owner, Operation):
        raise NybbleError(
            f"weights, tables and caches that '{value.owner.name}' computes",
            accepted="those that lie in memory",
        )
    return value.owner.args.index(value)  # pyright: ignore[reportArgumentType]


def known_shape(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor; NybbleError where a size is not known."""
    assert isinstance(value.type, TensorType)
    shape = value.type.get_shape()
    if DYNAMIC_INDEX in shape:
        raise NybbleError("a number of tokens that is not known", accepted="a number")
    return shape


def shape_of(value: SSAValue) -> tuple[int, int]:
    """Rows and columns; NybbleError for what has others."""
    shape = known_shape(value)
    if len(shape) != 2:
        raise NybbleError(f"{value.type} beside rows", accepted="rows and columns")
    return shape[0], shape[1]
