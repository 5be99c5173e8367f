"""What the memories of a kernel hold: which value of the operators it comes from, and laid out how.

| how | what lies in the memory |
|---|---|
| `activations` | rows in words of 16 floats, each row padded to whole words |
| `rows` | rows, vectors and results in words of `lanes` floats, which divide a row |
| `product` | results of a product, see `packing.unpack_results` |
| `weight` | codes, indices and scales, a memory for each, see `packing.pack_weight` |
| `bias` | what a product adds to its rows, see `packing.pack_bias` |
| `cos`, `sin` | for each position a row of a head: cos twice; -sin, then sin |
| `cache` | keys or values [heads, context, head_dim] in words of `lanes` elements |
| `position` | u32 |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.backends.fpga.design import Design
from nybble.backends.fpga.packing import (
    float_words,
    pack_activation,
    pack_bias,
    pack_weight,
    unpack_results,
)
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import memory_type
from nybble.dialects.fpga.words import U8

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Binding:
    """how: a row of the table above. index: the argument of the region, or its result.

    memories: their names, in order. lanes, design: what the layout follows from, where it does.
    """

    how: str
    index: int
    memories: tuple[str, ...]
    lanes: int = 1
    design: Design | None = None

    def describe(self) -> dict[str, object]:
        """What a manifest says."""
        known: dict[str, object] = {"lanes": self.lanes} if self.design is None else {}
        if self.how == "weight" and self.design is not None:
            known = {"format": self.design.spec}
        return {"how": self.how, "index": self.index, "memories": list(self.memories), **known}


def _rows(binding: Binding, value: F32) -> Sequence[U8]:
    return (float_words(np.ascontiguousarray(value, np.float32).reshape(-1, binding.lanes)),)


def _activations(binding: Binding, value: F32) -> Sequence[U8]:
    assert binding.design is not None
    return (pack_activation(binding.design, value),)


def _weight(binding: Binding, value: Any) -> Sequence[U8]:
    assert binding.design is not None
    return pack_weight(binding.design, value).memories


def _bias(binding: Binding, value: F32) -> Sequence[U8]:
    assert binding.design is not None
    return (pack_bias(binding.design, value),)


def _cos(binding: Binding, value: F32) -> Sequence[U8]:
    return _rows(binding, np.concatenate([value, value], axis=1))


def _sin(binding: Binding, value: F32) -> Sequence[U8]:
    return _rows(binding, np.concatenate([-value, value], axis=1))


def _cache(binding: Binding, value: npt.NDArray[Any]) -> Sequence[U8]:
    words = np.ascontiguousarray(value).reshape(-1, binding.lanes)
    return (words.view(np.uint8).copy(),)


def _position(_: Binding, value: int) -> Sequence[U8]:
    return (np.array([[value]], np.uint32).view(np.uint8),)


LAYOUTS: Mapping[str, Callable[[Binding, Any], Sequence[U8]]] = {
    "rows": _rows,
    "activations": _activations,
    "weight": _weight,
    "bias": _bias,
    "cos": _cos,
    "sin": _sin,
    "cache": _cache,
    "position": _position,
}
"""How a value is laid out -> the bytes [words, bits / 8] of its memories."""


@dataclass(frozen=True)
class Network:
    """A kernel with what its memories hold. shapes: of its results."""

    kernel: KernelOp
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    shapes: tuple[tuple[int, ...], ...] = field(default=())

    def memories(self, values: Sequence[Any]) -> tuple[U8, ...]:
        """The memories of a run on the region's arguments, in the order of the kernel's.

        values: f32 arrays, weights, caches, positions. What is only written is zeros.
        """
        found: dict[str, U8] = {}
        for binding in self.inputs:
            laid = LAYOUTS[binding.how](binding, values[binding.index])
            found |= dict(zip(binding.memories, laid, strict=True))
        return tuple(
            found[one.name_hint or ""] if one.name_hint in found else _empty(memory_type(one))
            for one in self.kernel.body.block.args
        )

    def read_memories(self, memories: Sequence[U8]) -> tuple[U8, ...]:
        """Those that the kernel reads, as a case of C simulation has them."""
        arguments = zip(self.kernel.body.block.args, memories, strict=True)
        read = set(self.kernel.inputs)
        return tuple(memory for one, memory in arguments if one in read)

    def results(self, written: Sequence[U8]) -> tuple[npt.NDArray[Any], ...]:
        """The region's results, of the memories that a run wrote."""
        names = [one.name_hint for one in self.kernel.outputs]
        return tuple(
            _result(binding, written[names.index(binding.memories[0])], shape)
            for binding, shape in zip(self.outputs, self.shapes, strict=True)
        )


def _empty(type_: Any) -> U8:
    return np.zeros((type_.words.data, type_.bits.data // 8), np.uint8)


def _result(binding: Binding, memory: U8, shape: Sequence[int]) -> npt.NDArray[Any]:
    if binding.how == "product":
        assert binding.design is not None
        return unpack_results(binding.design, memory)
    plain = np.ascontiguousarray(memory)
    if binding.how == "cache":
        wide = plain.shape[1] // binding.lanes == 4
        return plain.view(np.float32 if wide else np.float16).reshape(shape)
    words = plain.view(np.float32)[:, : binding.lanes].reshape(shape[0], -1)
    return words[:, : shape[1]]
