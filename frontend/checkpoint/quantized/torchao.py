"""torchao checkpoints in safetensors, as its `flatten_tensor_state_dict` makes of a model.

The tensor `LAYER.weight` is stored as `LAYER._weight_qdata`, `LAYER._weight_scale` and others; a
text in the file's metadata, under the tensor's name, tells its class and attributes. Pickled files
are never read. How activations are quantized is not taken over: nybble's `--activations` says it.
Source: torchao 0.18, `prototype/safetensors`, and the classes' own files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from nybble.frontend.checkpoint.errors import CheckpointError, quoted
from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.files import parse_json_object
from nybble.frontend.checkpoint.quantized.blocks import Blocks
from nybble.frontend.checkpoint.quantized.layer import FLOATS, Content, Decoded, Layer
from nybble.frontend.checkpoint.quantized.numbers import U8, unpack_bits
from nybble.frontend.checkpoint.quantized.spelling import MAX_GROUP, spelled, uniform

QDATA, SCALE, ZERO = "_weight_qdata", "_weight_scale", "_weight_zero_point"
TOTAL = "_weight_per_tensor_scale"
_ACTIVATIONS = ("_weight_act_quant_scale", "_weight_act_quant_zero_point")
_ACTIVATION_TOTAL = "_weight_act_per_tensor_scale"
_MX_ELEMENTS = {"float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "float4_e2m1fn_x2": "e2m1"}
_INT_TYPES = tuple(f"int{bits}" for bits in range(1, 9))


@dataclass(frozen=True)
class TorchAo:
    """The texts that describe the tensors, by the tensor's name."""

    path: Path
    records: Mapping[str, str]
    parts: ClassVar[tuple[str, ...]] = (
        QDATA, SCALE, ZERO, TOTAL, *_ACTIVATIONS, _ACTIVATION_TOTAL, "_weight_act_pre_scale",
    )  # fmt: skip
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @staticmethod
    def read(fields: Fields, metadata: Mapping[str, str]) -> "TorchAo":
        """The method of files with such metadata."""
        return TorchAo(fields.path.parent, metadata)

    def decode(self, layer: Layer) -> Decoded:
        """The weight of a layer; CheckpointError for a class or tensors that are not supported."""
        name = f"{layer.name}.weight"
        text = self.records.get(name)
        if text is None:
            message = f"has no metadata for tensor {quoted(name)}; torchao's writer adds it"
            raise CheckpointError(self.path, message)
        record = Fields(self.path, parse_json_object(text, self.path), {})
        kind = record.choice("_type", tuple(CLASSES))
        return CLASSES[kind](layer, record.inner("_data"))


Reader = Callable[[Layer, Fields], Decoded]


def _int8(layer: Layer, data: Fields) -> Decoded:
    """Int8Tensor: int8 weights, with dynamic int8 activations or without."""
    return _integers(layer, data, 8)


def _intx(layer: Layer, data: Fields) -> Decoded:
    """IntxUnpackedToInt8Tensor: integers of 1 to 8 bits, a byte each."""
    kind = data.inner("target_dtype").choice("_data", _INT_TYPES)
    return _integers(layer, data, int(kind.removeprefix("int")))


def _integers(layer: Layer, data: Fields, bits: int) -> Decoded:
    layer.only(QDATA, SCALE, ZERO, *_ACTIVATIONS)
    blocks = _blocks(layer, data)
    codes = layer.take(QDATA, ("i8",), layer.shape)
    scales = layer.take(SCALE, FLOATS, *blocks.shapes(layer.shape))
    zeros = None
    if ZERO in layer.tensors:
        stored = layer.take(ZERO, ("i8",), *blocks.shapes(layer.shape))
        # A symmetric quantizer writes zeros of 0, and nothing says that it did.
        zeros = (lambda: stored.codes(bits)) if stored.integers().any() else None
    spelling = uniform(bits, blocks.cols, scales.dtype, None if zeros is None else f"int.u{bits}")
    read = blocks.content(layer.shape[0], lambda: codes.codes(bits), scales.floats, zeros)
    return layer.decoded(spelling, read)


def _int4(layer: Layer, data: Fields) -> Decoded:
    """Int4Tensor: two's complement nibbles, low first; scales and minima are [groups, rows]."""
    layer.only(QDATA, SCALE, ZERO)
    (rows, cols), blocks = layer.shape, _blocks(layer, data)
    if blocks.rows != 1:
        raise data.fail("block_size", "one row")
    packed = layer.take(QDATA, ("i8", "u8"), (rows, -(-cols // 2)))
    shape = (layer.groups(blocks.cols), rows)
    scales, minima = (layer.take(part, FLOATS, shape) for part in (SCALE, ZERO))

    def content() -> Content:
        codes = unpack_bits(packed.bytes(), 4, cols) ^ np.uint8(8)
        return Content(codes, scales.floats().T, minima=minima.floats().T)

    spelling = spelled("i4", blocks.cols, scales.dtype) + f":z=min.{minima.dtype}"
    return layer.decoded(spelling, content)


def _float8(layer: Layer, data: Fields) -> Decoded:
    """Float8Tensor: e4m3 or e5m2 weights."""
    layer.only(QDATA, SCALE)
    blocks = _blocks(layer, data)
    codes = layer.take(QDATA, ("e4m3", "e5m2"), layer.shape)
    scales = layer.take(SCALE, FLOATS, *blocks.shapes(layer.shape))
    read = blocks.content(layer.shape[0], codes.bytes, scales.floats, None)
    return layer.decoded(spelled(codes.dtype, blocks.cols, scales.dtype), read)


def _mx(layer: Layer, data: Fields) -> Decoded:
    """MXTensor: small floats under powers of two."""
    layer.only(QDATA, SCALE)
    element = _MX_ELEMENTS[data.inner("elem_dtype").choice("_data", tuple(_MX_ELEMENTS))]
    blocks = _small_blocks(data)
    layer.groups(blocks.cols)
    scales = layer.take(SCALE, ("e8m0", "u8"), *blocks.shapes(layer.shape))
    codes = (
        _nibbles(layer) if element == "e2m1" else layer.take(QDATA, (element,), layer.shape).bytes
    )
    read = blocks.content(layer.shape[0], codes, scales.exponents, None)
    mxfp4 = element == "e2m1" and blocks.cols == 32
    return layer.decoded("mxfp4" if mxfp4 else spelled(element, blocks.cols, "e8m0"), read)


def _nvfp4(layer: Layer, data: Fields) -> Decoded:
    """NVFP4Tensor: e2m1 under e4m3, and perhaps one scale over them all."""
    layer.only(QDATA, SCALE, TOTAL, _ACTIVATION_TOTAL)
    blocks = _small_blocks(data)
    layer.groups(blocks.cols)
    scales = layer.take(SCALE, ("e4m3",), *blocks.shapes(layer.shape))
    read = blocks.content(layer.shape[0], _nibbles(layer), scales.floats, None)
    if TOTAL not in layer.tensors:
        return layer.decoded(spelled("e2m1", blocks.cols, "e4m3"), read)
    total = layer.take(TOTAL, ("f32",), (), (1,))
    spelling = spelled("e2m1", blocks.cols, "e4m3*tensor")
    return layer.decoded(spelling, lambda: replace(read(), total=total.floats()))


def _nibbles(layer: Layer) -> Callable[[], U8]:
    rows, cols = layer.shape
    packed = layer.take(QDATA, ("u8",), (rows, -(-cols // 2)))
    return lambda: unpack_bits(packed.bytes(), 4, cols)


def _blocks(layer: Layer, data: Fields) -> Blocks:
    """What shares a scale by the entry `block_size` [rows, cols]."""
    sizes = data.get("block_size")
    plain = isinstance(sizes, list) and all(type(size) is int and size >= 1 for size in sizes)
    if not plain or len(sizes) != 2 or max(sizes) > MAX_GROUP:
        raise data.fail("block_size", f"two sizes of 1 to {MAX_GROUP}")
    tall, wide = sizes
    blocks = Blocks(tall, None if wide == layer.shape[1] else wide)
    layer.groups(blocks.cols)
    return blocks


def _small_blocks(data: Fields) -> Blocks:
    """What shares a scale by the entry `block_size`, columns of one row, in plain order."""
    if data.flag("is_swizzled_scales"):
        raise data.fail("is_swizzled_scales", "false")
    return Blocks(1, data.integer("block_size", 1, MAX_GROUP))


CLASSES: Mapping[str, Reader] = MappingProxyType(
    {
        "Float8Tensor": _float8,
        "Int4Tensor": _int4,
        "Int8Tensor": _int8,
        "IntxUnpackedToInt8Tensor": _intx,
        "MXTensor": _mx,
        "NVFP4Tensor": _nvfp4,
    }
)
