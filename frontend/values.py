"""Tensors that come in from a caller, and go out to it: numpy arrays, or PyTorch's on the CPU."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.plan import Json
from nybble.backends.cpu.plan_json import as_object, as_scalar
from nybble.dialects.errors import NybbleError

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.generic]
DTYPES = ("float32", "float64", "bool", "uint8", "int8", "int32", "int64")
"""Element types that callers may bring, by the name they have in numpy and PyTorch alike."""


@dataclass(frozen=True)
class Signature:
    """The shape and numpy's name of the element type of a tensor, and the buffer it is in."""

    buffer: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Bytes of the tensor."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def to_json(self) -> Json:
        """For a manifest."""
        return {"buffer": self.buffer, "shape": [*self.shape], "dtype": self.dtype}

    @staticmethod
    def from_json(value: Json) -> "Signature":
        """What `to_json` gave; raises PlanError."""
        table = as_object(value, "a signature")
        shape = table.get("shape")
        dims = [as_scalar(dim, int, "a dimension") for dim in shape] if is_list(shape) else []
        buffer = as_scalar(table.get("buffer"), str, "a signature's buffer")
        return Signature(buffer, tuple(dims), as_scalar(table.get("dtype"), str, "a dtype"))

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


def is_list(value: Json) -> TypeGuard[list[Json]]:
    """Whether a value of a manifest is a list."""
    return isinstance(value, list)


def is_tensor(value: object) -> "TypeGuard[Tensor]":
    """Whether a value is a PyTorch tensor; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_array(value: object, name: str) -> Array:
    """The memory of a tensor or array; raises NybbleError for anything else."""
    if is_tensor(value):
        return _tensor_memory(value, name)
    if isinstance(value, np.ndarray):
        return cast("Array", value)
    kind = type(value).__name__
    raise NybbleError(f"{name} is of type {kind}", accepted="torch.Tensor, numpy.ndarray")


def _tensor_memory(value: "Tensor", name: str) -> Array:
    import torch

    if value.device.type != "cpu" or value.layout != torch.strided:
        raise NybbleError(f"{name} is a {value.layout} tensor on {value.device}", accepted="cpu")
    if value.requires_grad and torch.is_grad_enabled():
        raise NybbleError(
            f"{name} requires a gradient, and compiled code records none",
            accepted="a call under torch.no_grad()",
        )
    if str(value.dtype).removeprefix("torch.") not in DTYPES:
        raise NybbleError(f"{name} has dtype {value.dtype}", accepted=", ".join(DTYPES))
    return value.detach().numpy()


def check(array: Array, expected: Signature, name: str) -> None:
    """Raise NybbleError unless an array has the shape and dtype that code was compiled for."""
    if array.shape != expected.shape or array.dtype != np.dtype(expected.dtype):
        found = Signature("", array.shape, str(array.dtype))
        raise NybbleError(
            f"{name} is {found}", accepted=f"{expected}: code is compiled for one shape"
        )
