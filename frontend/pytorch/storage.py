"""Where the parameters of a swapped module come from: shapes only, or real bytes."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.frontend.pytorch.operators import decode


class StoredTensor(Protocol):
    """A parameter in a checkpoint file, under the name the model's module gives it."""

    @property
    def format(self) -> str:
        """Name of its number format."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape, rows first."""
        ...

    def raw(self) -> npt.NDArray[np.uint8]:
        """Its bytes in storage order, uint8 [rows, bytes per row], or a stream uint8 [n]."""
        ...


Tensors = Mapping[str, StoredTensor]


def find(tensors: Tensors, name: str, shape: tuple[int, ...]) -> StoredTensor:
    """The parameter `name`; raises NybbleError if it is absent or has another shape."""
    tensor = tensors.get(name)
    if tensor is None:
        raise NybbleError(f"the checkpoint has no tensor '{name}', which its architecture needs")
    if tuple(tensor.shape) != shape:
        raise NybbleError(
            f"tensor '{name}' has shape {_spell(tensor.shape)}",
            accepted=f"{_spell(shape)}, which the model's configuration asks for",
        )
    return tensor


def _spell(shape: tuple[int, ...]) -> str:
    return "x".join(str(dim) for dim in shape) or "scalar"


class Storage(Protocol):
    """Gives the parameters that modules hold."""

    def matrix(self, name: str, shape: tuple[int, int]) -> tuple[Tensor, str]:
        """Bytes uint8 [rows, bytes per row], or of a stream [n], and format of a matrix of this
        logical shape."""
        ...

    def vector(self, name: str, length: int) -> Tensor:
        """f32 [length]."""
        ...


class MetaStorage:
    """Parameters without values, on the meta device: enough for export."""

    def __init__(self, tensors: Tensors):
        self._tensors = tensors

    def matrix(self, name: str, shape: tuple[int, int]) -> tuple[Tensor, str]:
        """See `Storage`; raises NybbleError for an absent tensor, or one of another shape."""
        fmt = find(self._tensors, name, shape).format
        description = formats.get(fmt)
        description.check_shape(shape)
        # How long a stream is depends on its numbers, and nothing asks for it.
        size = [1] if description.is_streamed else [shape[0], description.row_bytes(shape[1])]
        return torch.empty(size, dtype=torch.uint8, device="meta"), fmt

    def vector(self, name: str, length: int) -> Tensor:
        """See `Storage`; raises NybbleError for an absent tensor, or one of another shape."""
        find(self._tensors, name, (length,))
        return torch.empty([length], dtype=torch.float32, device="meta")


class LoadedStorage:
    """Parameters read from a checkpoint, to run a swapped module in PyTorch."""

    def __init__(self, tensors: Tensors):
        self._tensors = tensors

    def matrix(self, name: str, shape: tuple[int, int]) -> tuple[Tensor, str]:
        """See `Storage`; raises NybbleError for an absent tensor, or one of another shape."""
        tensor = find(self._tensors, name, shape)
        raw = torch.from_numpy(np.array(tensor.raw()))
        streamed = formats.get(tensor.format).is_streamed
        return raw if streamed else raw.reshape(shape[0], -1), tensor.format

    def vector(self, name: str, length: int) -> Tensor:
        """See `Storage`; raises NybbleError for an absent tensor, or one of another shape."""
        tensor = find(self._tensors, name, (length,))
        raw = torch.from_numpy(np.array(tensor.raw())).reshape(1, -1)
        return decode(raw, tensor.format, length)[0]
