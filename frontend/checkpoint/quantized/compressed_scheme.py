"""One group of layers of a compressed-tensors checkpoint: what their codes and scales are.

A layer [rows, cols] is codes, in `weight_packed` (a stream of small codes along each row) or in
`weight`, with `weight_scale` and, by the group, `weight_zero_point` and `weight_global_scale`.
Source: the compressors of compressed-tensors 0.20.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.quantized.blocks import Blocks
from nybble.frontend.checkpoint.quantized.layer import FLOATS, Content, Decoded, Layer
from nybble.frontend.checkpoint.quantized.numbers import (
    U8,
    Floats,
    unpack_bits,
    unpack_words,
    words_of,
)
from nybble.frontend.checkpoint.quantized.spelling import MAX_GROUP, spelled, uniform
from nybble.frontend.checkpoint.quantized.targets import Targets

ACTIVATIONS = ("input_scale", "input_zero_point", "input_global_scale")
"""Parts of a layer that say nothing of its weight."""

_EXPONENTS = ("u8", "e8m0")
_ELEMENTS = {4: "e2m1", 6: "e2m3", 8: "e4m3"}
_STRATEGIES = ("tensor", "channel", "group", "tensor_group", "block")


@dataclass(frozen=True)
class Storage:
    """How a format of compressed-tensors stores a layer.

    kinds: "int" and "float", what its codes may be. stream: type of the packed codes, empty for one
    byte each. scales: types of the scales. total: whether one more scale divides them all.
    """

    kinds: tuple[str, ...]
    stream: str = ""
    scales: tuple[str, ...] = FLOATS
    total: bool = False


STORAGES: Mapping[str, Storage] = MappingProxyType(
    {
        "pack-quantized": Storage(("int",), "i32"),
        "int-quantized": Storage(("int",)),
        "float-quantized": Storage(("float",)),
        "naive-quantized": Storage(("int", "float")),
        "nvfp4-pack-quantized": Storage(("float",), "u8", ("e4m3",), total=True),
        "mxfp4-pack-quantized": Storage(("float",), "u8", _EXPONENTS),
        "mxfp6-pack-quantized": Storage(("float",), "u8", _EXPONENTS),
        "mxfp8-quantized": Storage(("float",), "", _EXPONENTS),
    }
)


@dataclass(frozen=True)
class Scheme:
    """What one of the `config_groups` says of the weights of its targets."""

    targets: Targets
    storage: Storage
    kind: str
    bits: int
    symmetric: bool
    blocks: Blocks

    @staticmethod
    def read(fields: Fields) -> "Scheme | None":
        """The group in `fields`; None if it leaves weights as they are."""
        weights = fields.inner("weights", {"type": "int", "symmetric": True, "num_bits": 8})
        if not weights.values:
            return None
        storage = STORAGES[fields.choice("format", tuple(STORAGES))]
        kind = weights.choice("type", storage.kinds)
        bits = weights.integer("num_bits", 1, 8)
        symmetric = weights.flag("symmetric")
        if kind == "float" and (bits not in _ELEMENTS or (bits < 8 and not storage.stream)):
            raise weights.fail("num_bits", "8 for floats, or 4 or 6 where they are packed")
        if kind == "float" and not symmetric:
            raise weights.fail("symmetric", "true for floats")
        if weights.get("dynamic"):
            raise weights.fail("dynamic", "false for weights")
        targets = Targets.read(fields, "targets")
        return Scheme(targets, storage, kind, bits, symmetric, _blocks(weights))

    def decode(self, layer: Layer) -> Decoded:
        """The weight of a layer of this group; CheckpointError if its tensors are not so."""
        layer.groups(self.blocks.cols)
        layer.only(*self._parts(), *ACTIVATIONS)
        codes, scale, zeros = self._codes(layer), self._scale(layer), self._zeros(layer)
        content = self._under_total(layer, self.blocks.content(layer.shape[0], codes, scale, zeros))
        return layer.decoded(self._spelling(layer.tensors["weight_scale"].dtype), content)

    def _parts(self) -> tuple[str, ...]:
        """The tensors of a layer."""
        parts = ("weight_packed",) if self.storage.stream else ("weight",)
        parts += ("weight_scale",)
        if self.storage.stream == "i32":
            parts += ("weight_shape",)
        if self.storage.total:
            parts += ("weight_global_scale",)
        return parts if self.symmetric else (*parts, "weight_zero_point")

    def _codes(self, layer: Layer) -> Callable[[], U8]:
        """What reads the codes u8 [rows, cols]."""
        rows, cols = layer.shape
        if self.storage.stream == "i32":
            shape = layer.take("weight_shape", ("i64", "i32"), (2,)).integers()
            if tuple(shape) != layer.shape:
                raise layer.fail("weight_shape", f"is {shape.tolist()}; needed: {[rows, cols]}")
            words = layer.take("weight_packed", ("i32",), (rows, words_of(cols, self.bits)))
            return lambda: unpack_words(words.integers(), self.bits, cols)
        if self.storage.stream:
            packed = layer.take("weight_packed", ("u8",), (rows, -(-cols * self.bits // 8)))
            return lambda: unpack_bits(packed.bytes(), self.bits, cols)
        if self.kind == "float":
            return layer.take("weight", (_ELEMENTS[self.bits],), layer.shape).bytes
        weight = layer.take("weight", ("i8",), layer.shape)
        return lambda: weight.codes(self.bits)

    def _scale(self, layer: Layer) -> Callable[[], Floats]:
        """What reads the scales, in the shape that they are stored in."""
        scales = layer.take("weight_scale", self.storage.scales, *self.blocks.shapes(layer.shape))
        if self.storage.scales == _EXPONENTS:
            return scales.exponents
        return scales.floats

    def _under_total(self, layer: Layer, content: Callable[[], Content]) -> Callable[[], Content]:
        """The content with the scale of the matrix, if there is one; the file has what divides."""
        if not self.storage.total:
            return content
        divisor = layer.take("weight_global_scale", ("f32",), (1,))

        def read() -> Content:
            with np.errstate(divide="ignore", over="ignore"):
                return replace(content(), total=np.float32(1) / divisor.floats())

        return read

    def _zeros(self, layer: Layer) -> Callable[[], U8] | None:
        """What reads the zeros as codes, in the shape of the scales; None without zeros."""
        if self.symmetric:
            return None
        rows, (shape, *others) = layer.shape[0], self.blocks.shapes(layer.shape)
        if self.storage.stream and self.blocks.rows == 1:
            packed = (words_of(rows, self.bits), shape[1])
            words = layer.take("weight_zero_point", ("i32",), packed)
            return lambda: unpack_words(words.integers().T, self.bits, rows).T
        numbers = layer.take("weight_zero_point", ("i8",), shape, *others)
        return lambda: numbers.codes(self.bits)

    def _spelling(self, scale: str) -> str:
        """The spelling of the format of a layer with scales of a type."""
        group = self.blocks.cols
        if self.kind == "int":
            return uniform(self.bits, group, scale, None if self.symmetric else f"int.u{self.bits}")
        if self.storage.scales == _EXPONENTS:
            blocks = self.bits == 4 and group == 32
            return "mxfp4" if blocks else spelled(_ELEMENTS[self.bits], group, "e8m0")
        return spelled(
            _ELEMENTS[self.bits], group, f"{scale}*tensor" if self.storage.total else scale
        )


def _blocks(weights: Fields) -> Blocks:
    """What shares a scale, by the `strategy` and its sizes."""
    if weights.get("actorder") not in (None, False, "weight", "static"):
        raise weights.fail("actorder", "weight, static or absent: groups of consecutive columns")
    size = weights.get("group_size")
    inferred = "tensor" if size is None else "channel" if size == -1 else "group"
    known = Fields(weights.path, weights.values, {"strategy": inferred})
    match known.choice("strategy", _STRATEGIES):
        case "tensor":
            return Blocks(None, None)
        case "channel":
            return Blocks(1, None)
        case "block":
            sizes = weights.get("block_structure")
            if not isinstance(sizes, list) or len(sizes) != 2 or not all(map(_is_size, sizes)):
                raise weights.fail("block_structure", f"two sizes of 1 to {MAX_GROUP}")
            return Blocks(sizes[0], sizes[1])
        case _:
            return Blocks(1, weights.integer("group_size", 1, MAX_GROUP))


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_GROUP
