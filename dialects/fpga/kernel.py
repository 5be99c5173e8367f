"""A kernel: processes between memories, joined by streams."""

from collections.abc import Mapping
from typing import Any

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def, region_def, traits_def
from xdsl.traits import IsolatedFromAbove, NoTerminator, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.processes import ProcessOp, memory_type
from nybble.dialects.fpga.types import MemoryType, StreamType
from nybble.dialects.fpga.words import U8
from nybble.dialects.interpreter import HasReference


@irdl_op_definition
class KernelOp(IRDLOperation):
    """A network of processes that run at the same time: `fpga.kernel "name" on "u280" { .. }`.

    The region's arguments are memories. Each memory is used by one process, and each stream is
    read by one process.
    """

    name = "fpga.kernel"
    sym_name = prop_def(StringAttr)
    device = prop_def(StringAttr)
    body = region_def("single_block")
    traits = traits_def(IsolatedFromAbove(), NoTerminator(), SymbolOpInterface())
    assembly_format = "$sym_name `on` $device $body attr-dict-with-keyword"

    def __init__(self, name: str, device: str, memories: Mapping[str, Attribute]):
        block = Block(arg_types=list(memories.values()))
        for argument, hint in zip(block.args, memories, strict=True):
            argument.name_hint = hint
        super().__init__(
            properties={"sym_name": StringAttr(name), "device": StringAttr(device)},
            regions=[Region(block)],
        )

    @property
    def processes(self) -> list[ProcessOp]:
        """The processes, in program order."""
        return [op for op in self.body.block.ops if isinstance(op, ProcessOp)]

    @property
    def streams(self) -> list[SSAValue]:
        """All streams, in program order."""
        return [result for op in self.processes for result in op.results]

    @property
    def outputs(self) -> list[SSAValue]:
        """The memories that are written, in the order of the arguments."""
        written = {memory for op in self.processes for memory in op.written}
        return [memory for memory in self.body.block.args if memory in written]

    @property
    def inputs(self) -> list[SSAValue]:
        """The memories that are read."""
        return [memory for op in self.processes for memory in op.read]

    def verify_(self) -> None:
        for index, memory in enumerate(self.body.block.args):
            if not isinstance(memory.type, MemoryType):
                raise VerifyException(f"argument {index} must be a memory, got {memory.type}")
            _check_used_once(f"memory {index}", memory)
        for op in self.body.block.ops:
            if not isinstance(op, ProcessOp):
                raise VerifyException(f"'{op.name}' is no process")
            for index, stream in enumerate(op.results):
                if isinstance(stream.type, StreamType):
                    _check_used_once(f"stream {index} of '{op.name}'", stream)

    def run(self, *memories: U8) -> tuple[U8, ...]:
        """What each written memory holds in the end, by the references of the processes.

        memories: bytes [words, bits / 8] of each argument; of those that are written only the
        shape matters.
        """
        values: dict[SSAValue, Any] = dict(zip(self.body.block.args, memories, strict=True))
        for memory, value in values.items():
            type_ = memory_type(memory)
            assert value.shape == (type_.words.data, type_.bits.data // 8), (type_, value.shape)
        written = {memory: values[memory].copy() for memory in self.outputs}
        values |= written
        for op in self.processes:
            assert isinstance(op, HasReference), op.name
            found = op.reference(*(values[operand] for operand in op.operands))
            values.update(zip(op.results, found, strict=True))
        return tuple(written.values())


def _check_used_once(what: str, value: SSAValue) -> None:
    count = len({use.operation for use in value.uses})
    if count != 1:
        raise VerifyException(f"{what} must be used by one process, got {count}")
