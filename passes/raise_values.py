"""What `raise-torch-to-operators` knows of a value of the torch dialect.

A torch tensor of activations has batch 1 and any of three shapes over the same numbers; all three
are one 2-D tensor [tokens, features] here, so that views and transpositions cost nothing.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    Float16Type,
    Float32Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    StringAttr,
    TensorType,
    UnregisteredAttr,
    UnregisteredOp,
    i1,
    i32,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of

VTENSOR = "torch.vtensor"
_SHAPE = re.compile(r"\[([0-9?, ]*)\],\s*(\w+)")


class RaiseError(NybbleError):
    """An operation or a type of the torch dialect that has no counterpart among the operators."""


class Layout(Enum):
    """The logical shape of a torch value, S tokens, H heads of D features."""

    ROWS = "[1, S, features]"
    HEADS = "[1, S, H, D]"
    SWAPPED = "[1, H, S, D]"
    PLAIN = "none of tokens"


@dataclass(frozen=True)
class Raised:
    """A value of the operators stage and the logical shape of the torch value it stands for."""

    value: SSAValue
    layout: Layout


@dataclass(frozen=True)
class Gate:
    """An activation function's result, which exists only as a factor of a gated product."""

    source: Raised
    activation: str
    op: Operation


@dataclass(frozen=True)
class TorchTensor:
    """The type `!torch.vtensor<[dims],element>`; a dynamic dimension is DYNAMIC_INDEX."""

    dims: tuple[int, ...]
    element: str


def torch_tensor(type_: Attribute) -> TorchTensor | None:
    """The parts of a torch tensor type; None for any other type."""
    if not isinstance(type_, UnregisteredAttr) or type_.attr_name.data != VTENSOR:
        return None
    found = _SHAPE.fullmatch(type_.value.data.strip())
    if found is None:
        return None
    dims = [dim.strip() for dim in found[1].split(",")] if found[1].strip() else []
    return TorchTensor(tuple(DYNAMIC_INDEX if d == "?" else int(d) for d in dims), found[2])


def torch_name(op: Operation) -> str:
    """The name of a torch op without the dialect: "aten.silu", "nybble.linear"."""
    if not isinstance(op, UnregisteredOp):
        return op.name
    name = op.op_name.data
    custom = op.properties.get("name")
    if name == "torch.operator" and isinstance(custom, StringAttr):
        name = custom.data
    return name.removeprefix("torch.")


def refuse(op: Operation, message: str, accepted: str | None = None) -> NoReturn:
    """Raise RaiseError about an operation."""
    prefix = "torch." if isinstance(op, UnregisteredOp) else ""
    raise RaiseError(
        f"'{prefix}{torch_name(op)}' {message}", location=location_of(op), accepted=accepted
    )


@contextmanager
def blaming(op: Operation) -> Generator[None]:
    """Turn a rule that an operator raised from `op` breaks into a RaiseError at `op`."""
    try:
        yield
    except VerifyException as fault:
        refuse(op, f"breaks a rule of its counterpart: {fault}")


Scalar = int | float | str | bool | None


def constant(op: Operation, index: int) -> Scalar:
    """The constant that operand `index` of `op` is; RaiseError if it is computed."""
    owner = op.operands[index].owner
    name = owner.op_name.data if isinstance(owner, UnregisteredOp) else ""
    if isinstance(owner, UnregisteredOp) and name.startswith("torch.constant."):
        value = owner.properties.get("value")
        if isinstance(value, IntegerAttr) and value.type == i1:
            return bool(value.value.data)
        if isinstance(value, IntegerAttr | FloatAttr):
            return value.value.data
        if isinstance(value, StringAttr):
            return value.data
        if name == "torch.constant.none":
            return None
    refuse(op, f"needs a constant as operand {index}")


def integer(op: Operation, index: int) -> int:
    """The integer constant that operand `index` is."""
    value = constant(op, index)
    return value if isinstance(value, int) else refuse(op, f"needs an integer as operand {index}")


def number(op: Operation, index: int) -> float:
    """The number that operand `index` is."""
    value = constant(op, index)
    if isinstance(value, int | float):
        return float(value)
    refuse(op, f"needs a number as operand {index}")


def text(op: Operation, index: int) -> str:
    """The string that operand `index` is."""
    value = constant(op, index)
    return value if isinstance(value, str) else refuse(op, f"needs a string as operand {index}")


_ELEMENTS: dict[str, Attribute] = {"f32": Float32Type(), "f16": Float16Type()}


def argument_type(type_: Attribute) -> tuple[Attribute, Layout] | None:
    """The operators' type of a torch argument that is not a weight; None if there is none.

    `[]` si64 is a position, `[1,?]` si32 token ids, `[1,?,F]` f32 activations; a static f32 or
    f16 tensor of up to three dimensions is a vector, a table or a cache.
    """
    tensor = torch_tensor(type_)
    match tensor:
        case TorchTensor((), "si64"):
            return IndexType(), Layout.PLAIN
        case TorchTensor((1, tokens), "si32"):
            return TensorType(i32, [tokens]), Layout.ROWS
        case TorchTensor((1, tokens, features), "f32") if tokens == DYNAMIC_INDEX < features:
            return TensorType(Float32Type(), [tokens, features]), Layout.ROWS
        case TorchTensor((_, *_) as dims, ("f32" | "f16") as element):
            if DYNAMIC_INDEX in dims or len(dims) > 3:
                return None
            return TensorType(_ELEMENTS[element], dims), Layout.PLAIN
        case _:
            return None
