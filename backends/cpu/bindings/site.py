"""From a scheduled `fused.kernel` to the kernel that implements it and the buffers it is called on.

One row per named fusion (see the pass `fuse-kernels`). A binding says for every buffer of the
kernel whether it is an input or an output of the region, which part of its value (a quantized
matrix is three buffers), or scratch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, SSAValue

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.builder import BufferSpec
from nybble.backends.cpu.schedule_space import Choices, Options
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.types import LowBitTensorType

TOKENS = "tokens"
"""The option of a schedule that says how many tokens a launch handles."""
OpT = TypeVar("OpT", bound=Operation)


class BindingError(NybbleError):
    """A kernel region that no generated kernel implements."""


class Kernel(Protocol):
    """A kernel specification: its buffer arguments in order, and its construction."""

    @property
    def buffers(self) -> list[BufferSpec]:
        """The buffer arguments."""
        ...

    def build(self, name: str) -> FuncOp:
        """The function, see the ABI in `kernels.builder`."""
        ...


@dataclass(frozen=True)
class In:
    """Part `part` of input `index` of the region."""

    index: int
    part: int = 0


@dataclass(frozen=True)
class Out:
    """Part `part` of output `index` of the region."""

    index: int
    part: int = 0


@dataclass(frozen=True)
class Scratch:
    """Memory that holds nothing between launches."""


@dataclass(frozen=True)
class Partial:
    """Memory that the first launch of a region writes and the last one reads."""

    written: bool


Slot = In | Out | Scratch | Partial


@dataclass(frozen=True)
class Binding:
    """A kernel and its arguments.

    slots: one per buffer of the kernel. in_place: output -> the input whose memory it takes over.
    then: what a region launches after this, where one kernel cannot do it all.
    """

    kernel: Kernel
    slots: tuple[Slot, ...]
    in_place: dict[int, int] = field(default_factory=dict[int, int])
    then: "Binding | None" = None

    def __post_init__(self) -> None:
        assert len(self.slots) == len(self.kernel.buffers)

    @property
    def choices(self) -> Choices | None:
        """What a schedule may choose for the kernel; None for nothing."""
        return getattr(self.kernel, "space", None)

    @property
    def launches(self) -> tuple["Binding", ...]:
        """This and what follows, in order."""
        return (self, *(() if self.then is None else self.then.launches))


@dataclass(frozen=True)
class Site:
    """What a binding rule looks at: the region, the instruction set, the number of threads."""

    op: KernelOp
    isa: Isa
    threads: int

    @property
    def lanes(self) -> int:
        """f32 lanes of a vector register."""
        return self.isa.vector_bits // 32

    @property
    def tokens(self) -> int:
        """The most tokens one launch handles."""
        schedule = self.op.schedule
        tokens = None if schedule is None else schedule.option(TOKENS)
        if tokens is None:
            raise self.error("has no schedule with a number of tokens")
        return tokens

    @property
    def options(self) -> Options:
        """The sizes that the schedule chose for the kernel's lowering."""
        schedule = self.op.schedule
        chosen = {} if schedule is None else schedule.sizes()
        return {name: value for name, value in chosen.items() if name != TOKENS}

    def only(self, kind: type[OpT]) -> OpT:
        """The one operation of `kind` in the region."""
        found = self.all(kind)
        if len(found) != 1:
            raise self.error(f"must hold one {kind.name}, it holds {len(found)}")
        return found[0]

    def all(self, kind: type[OpT]) -> list[OpT]:
        """The operations of `kind` in the region."""
        return [op for op in self.op.body.block.ops if isinstance(op, kind)]

    def place(self, value: SSAValue) -> int:
        """Which input of the region a value is."""
        if not isinstance(value, BlockArgument):
            raise self.error("reads a value that is not an input of the region")
        return value.index

    def result(self, value: SSAValue) -> int:
        """Which output of the region a value is."""
        last = self.op.body.block.last_op
        assert last is not None
        if value not in last.operands:
            raise self.error("must yield the result of its last operation")
        return list(last.operands).index(value)

    def outputs(self, values: Sequence[SSAValue]) -> tuple[Out | Scratch, ...]:
        """Slots of results, of which those that nobody reads are no outputs of the region."""
        last = self.op.body.block.last_op
        assert last is not None
        yielded = list(last.operands)
        return tuple(
            Out(yielded.index(value)) if value in yielded else Scratch() for value in values
        )

    def error(self, fault: str) -> BindingError:
        """A located error that says what is wrong with the region."""
        name = self.op.kernel_name.data
        return BindingError(f'kernel "{name}" {fault}', location=location_of(self.op))

    def rephrased(self, fault: NybbleError | ValueError) -> NybbleError:
        """A fault of a specification, placed at the region it was made for."""
        place = location_of(self.op)
        if isinstance(fault, NybbleError):
            return BindingError(
                fault.message, location=fault.location or place, accepted=fault.accepted
            )
        return BindingError(str(fault), location=place)


def columns(value: SSAValue) -> int:
    """Features of a matrix of tokens."""
    if isinstance(value.type, LowBitTensorType):
        return value.type.cols
    assert isinstance(value.type, TensorType)
    width = value.type.get_shape()[-1]
    assert width != DYNAMIC_INDEX
    return width


def parts(slot: type[In] | type[Out], index: int, count: int = 3) -> tuple[Slot, ...]:
    """Slots for all parts of a quantized matrix: codes, scales, sums."""
    return tuple(slot(index, part) for part in range(count))
