"""Programs of a launch plan out of lowered functions: each call of a kernel becomes a step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.dialects import func, memref
from xdsl.dialects.builtin import MemRefType, ModuleOp, StringAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.traits import SymbolTable

from nybble.backends.cpu.kernels.buffers import byte_width
from nybble.backends.cpu.lower_kernels_to_cpu import ACCESS, LAYOUT
from nybble.backends.cpu.plan import Buffer, BufferRef, Kernel, Kind, Step
from nybble.dialects.errors import NybbleError


def buffer_bytes(type_: Attribute) -> int:
    """Bytes of a flat static memref."""
    assert isinstance(type_, MemRefType)
    return type_.get_shape()[0] * byte_width(type_.element_type)


@dataclass
class Assembler:
    """Collects the buffers and kernels that the calls of a module's functions need.

    buffers: intermediate results and scratch by name; kernels: by symbol.
    """

    module: ModuleOp
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    kernels: dict[str, Kernel] = field(default_factory=dict[str, Kernel])

    def function(self, name: str) -> func.FuncOp:
        """The lowered function called `name`; raises NybbleError."""
        found = SymbolTable.lookup_symbol(self.module, name)
        if not isinstance(found, func.FuncOp):
            raise NybbleError(f"no function '{name}' in the lowered module")
        return found

    def argument_bytes(self, name: str) -> list[int]:
        """Bytes of each buffer argument of a function."""
        arguments = self.function(name).body.block.args
        return [buffer_bytes(arg.type) for arg in arguments if isinstance(arg.type, MemRefType)]

    def argument_layouts(self, name: str) -> list[str]:
        """The compute layout of each buffer argument of a function; empty for what is no weight."""
        function = self.function(name)
        buffers = [isinstance(arg.type, MemRefType) for arg in function.body.block.args]
        if function.arg_attrs is None:
            return [""] * sum(buffers)
        layouts = [attributes.data.get(LAYOUT) for attributes in function.arg_attrs]
        return [
            layout.data if isinstance(layout, StringAttr) else ""
            for layout, buffer in zip(layouts, buffers, strict=True)
            if buffer
        ]

    def call(self, name: str, arguments: Sequence[BufferRef]) -> list[Step]:
        """The steps of a call of function `name` on these buffers."""
        block = self.function(name).body.block
        formal = [arg for arg in block.args if isinstance(arg.type, MemRefType)]
        if len(formal) != len(arguments):
            raise NybbleError(f"'{name}' takes {len(formal)} buffers, got {len(arguments)}")
        held: dict[SSAValue, BufferRef] = dict(zip(formal, arguments, strict=True))
        steps: list[Step] = []
        for op in block.ops:
            if isinstance(op, memref.AllocOp):
                held[op.memref] = self._allocate(f"{name}.{len(held)}", op)
            elif isinstance(op, func.CallOp):
                steps.append(self._step(op, held))
        return steps

    def _allocate(self, name: str, op: memref.AllocOp) -> BufferRef:
        users = list(op.memref.uses)
        kind = Kind.SCRATCH if len(users) == 1 else Kind.ARENA
        self.buffers[name] = Buffer(name, buffer_bytes(op.memref.type), kind)
        return BufferRef(name)

    def _step(self, op: func.CallOp, held: dict[SSAValue, BufferRef]) -> Step:
        values = [value for value in op.arguments if isinstance(value.type, MemRefType)]
        access = op.attributes[ACCESS]
        assert isinstance(access, StringAttr)
        symbol = op.callee.root_reference.data
        sizes = tuple(buffer_bytes(value.type) for value in values)
        self.kernels[symbol] = Kernel(symbol, sizes, access.data)
        return Step(symbol, tuple(held[value] for value in values))
