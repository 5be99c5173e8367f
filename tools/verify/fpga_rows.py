"""Random operators on rows, attentions and decoder blocks for `nybble verify --target fpga`.

What a function means is said by the f64 references of its operators; what its kernel must write,
bit by bit, by those of the processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import Float16Type, IndexType, ModuleOp, StringAttr, TensorType
from xdsl.ir import Attribute, SSAValue

from nybble.backends.fpga.bindings import Network
from nybble.backends.fpga.lower_kernels_to_fpga import networks
from nybble.dialects.fpga.kernel import KernelOp as FpgaKernel
from nybble.dialects.fpga.words import U8
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.tools.mlir_file import find_function
from nybble.tools.verify.fpga_texts import FAMILIES, Family, Random

Array = npt.NDArray[Any]
FUNCTION = "f"
PASSES = (
    "select-dataflow{{target=fpga isa={0} activations=i8-token reasons=false}},assign-layout,"
    "fuse-kernels{{target=fpga isa={0} reasons=false}},chain-kernels"
)
DATA = {"normal": 1.0, "small": 1e-3, "large": 30.0, "zero": 0.0}
"""Kind of data -> what numbers of a normal distribution are multiplied by."""


@dataclass(frozen=True)
class DrawnRows:
    """A function of a family as one kernel, and what its values are."""

    family: str
    text: str
    name: str
    device: str

    @cached_property
    def module(self) -> ModuleOp:
        """The launch, at the stage that is lowered."""
        module = parse_module(make_context(), self.text, self.family)
        find_function(module, FUNCTION).properties["sym_name"] = StringAttr(self.name)
        run_passes(make_context(), module, build_pipeline(PASSES.format(self.device)))
        return module

    @property
    def kernel(self) -> FpgaKernel:
        """The kernel of all operators."""
        return self.network.kernel

    @cached_property
    def network(self) -> Network:
        """The kernel, and what its memories hold."""
        (made,) = networks(self.module, self.device)
        return made

    @cached_property
    def launch(self) -> KernelOp:
        """All operators."""
        (launch,) = (one for one in self.module.walk() if isinstance(one, KernelOp))
        return launch

    def values(self, data: str, random: Random) -> list[Any]:
        """Random values of the launch's inputs."""
        types = [one.type for one in self.launch.inputs]
        caches = [one.get_shape()[1] for one in types if is_cache(one)]
        context = min(caches, default=6)
        return [value_of(one, DATA[data], context, random) for one in types]

    def meaning(self, values: list[Any]) -> tuple[Array, ...]:
        """What the operators' references give."""
        whole = [values[self.launch.inputs.index(one)] for one in self.arguments]
        found = dict(
            zip(self.returned, Interpreter(self.module).call(self.name, *whole), strict=True)
        )
        return tuple(found[one] for one in self.launch.outputs)

    @property
    def arguments(self) -> Sequence[SSAValue]:
        """Of the function."""
        return find_function(self.module, self.name).body.block.args

    @property
    def returned(self) -> Sequence[SSAValue]:
        """What the function returns."""
        last = find_function(self.module, self.name).body.block.last_op
        assert last is not None
        return last.operands


@dataclass(frozen=True)
class TriedRows:
    """A case: its kernel, what it reads, what it must write, and how far that is off."""

    number: int
    drawn: DrawnRows
    data: str
    memories: tuple[U8, ...]
    right: tuple[Array, ...]
    error: float

    @property
    def kernel(self) -> str:
        """The kernel's name."""
        return self.drawn.kernel.sym_name.data

    def judged(self, written: Sequence[U8]) -> dict[str, object]:
        """The case in the words of the command's report."""
        got = self.drawn.network.results(written)
        same = [np.array_equal(a, b, equal_nan=True) for a, b in zip(got, self.right, strict=True)]
        fault = "" if all(same) else f"result {same.index(False)} is not that of the references"
        if not fault and self.error > 1:
            fault = "the references are far from the operators"
        return {
            "case": self.number,
            "family": self.drawn.family,
            "text": self.drawn.text,
            "data": self.data,
            "error": self.error,
            "fault": fault,
        }


def make_rows(drawn: DrawnRows, number: int, random: Random) -> TriedRows:
    """A case of a kernel."""
    data = str(random.choice(list(DATA)))
    values, made = drawn.values(data, random), drawn.network
    memories = made.memories(values)
    right = made.results(made.kernel.run(*memories))
    meant = drawn.meaning(values)
    family, scale = FAMILIES[drawn.family], DATA[data]
    error = max(error_of(family, scale, a, b) for a, b in zip(right, meant, strict=True))
    return TriedRows(number, drawn, data, made.read_memories(memories), right, error)


def draw_families(
    seed: int, count: int, device: str, families: Sequence[str] = tuple(FAMILIES)
) -> list[DrawnRows]:
    """Kernels of so many families, each once before any comes again."""
    random = np.random.default_rng([seed, count])
    names = [str(one) for one in random.permutation(list(families))]
    return [
        draw_rows(names[index % len(names)], f"r{index}", device, random) for index in range(count)
    ]


def draw_rows(family: str, name: str, device: str, random: Random) -> DrawnRows:
    """A random function of a family."""
    return DrawnRows(family, FAMILIES[family].text(random), name, device)


def is_cache(type_: Attribute) -> TypeGuard[TensorType[Attribute]]:
    """Whether a type is that of keys or values."""
    return isinstance(type_, TensorType) and len(type_.get_shape()) == 3


def value_of(type_: Attribute, scale: float, context: int, random: Random) -> Any:
    """A random value of a type; positions are in the context."""
    if isinstance(type_, IndexType):
        return int(random.integers(context))
    if isinstance(type_, LowBitTensorType):
        dense = random.standard_normal((type_.rows, type_.cols)).astype(np.float32)
        return type_.number_format.quantize(dense)
    assert isinstance(type_, TensorType)
    made = random.standard_normal(type_.get_shape()) * scale
    return made.astype(np.float16 if isinstance(type_.element_type, Float16Type) else np.float32)


def error_of(family: Family, scale: float, found: Array, wanted: Array) -> float:
    """The largest error of a result, over what is allowed."""
    if not found.size:
        return 0.0
    lost = float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max())
    return lost / family.allowed(scale, float(np.abs(wanted).max()))
