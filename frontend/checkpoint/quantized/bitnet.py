"""BitNet b1.58 checkpoints, as transformers writes them.

A packed layer [rows, cols] is `weight` u8 [ceil(rows / 4), cols] with `weight_scale` [1]: byte r of
a column holds at its bits 2 i the digit of row `i * ceil(rows / 4) + r`, less one. The layers of
class "bitlinear" divide by the scale, those of "autobitlinear" multiply by it. In the mode "online"
weights are floats that become ternary as they are read: their mean magnitude is the scale.
Source: `pack_weights`, `BitLinear`, `AutoBitLinear` and `WeightQuant` of transformers 5.23.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.quantized.layer import FLOATS, Content, Decoded, Layer, LayerTensor
from nybble.frontend.checkpoint.quantized.numbers import U8, Floats
from nybble.frontend.checkpoint.quantized.spelling import spelled
from nybble.frontend.checkpoint.quantized.targets import names_of

PER_BYTE = 4
SMALLEST_MEAN = np.float32(1e-5)
_KEPT = ("lm_head",)


@dataclass(frozen=True)
class BitNet:
    """What `quantization_config` says of every layer; see the module's text.

    kept: names of the layers, or of what they are in, that stay floats.
    """

    divides: bool
    online: bool
    kept: tuple[str, ...]
    parts: ClassVar[tuple[str, ...]] = ("weight", "weight_scale")
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"linear_class": "bitlinear", "quantization_mode": "offline"}
    )

    @staticmethod
    def read(fields: Fields, metadata: Mapping[str, str]) -> "BitNet":
        """The configuration in `fields`; CheckpointError names what is not supported."""
        divides = fields.choice("linear_class", ("bitlinear", "autobitlinear")) == "bitlinear"
        online = fields.choice("quantization_mode", ("offline", "online")) == "online"
        if fields.flag("use_rms_norm"):
            raise fields.fail("use_rms_norm", "false (norms before each layer are not supported)")
        if online and divides:
            raise fields.fail("quantization_mode", "offline with linear_class bitlinear")
        return BitNet(divides, online, names_of(fields, "modules_to_not_convert", _KEPT))

    def decode(self, layer: Layer) -> Decoded | None:
        """The weight of a layer, None for one that stays floats.

        Raises CheckpointError for tensors that do not fit together.
        """
        if self.online:
            return None if self._keeps(layer.name) else _online(layer)
        if "weight_scale" not in layer.tensors:
            return None
        scale = layer.take("weight_scale", FLOATS, (1,), ())
        codes, rows = self._codes(layer), layer.shape[0]

        def content() -> Content:
            with np.errstate(divide="ignore"):
                value = np.reciprocal(scale.floats()) if self.divides else scale.floats()
            return Content(codes(), np.repeat(value.reshape(1, 1), rows, axis=0))

        stored = "f32" if self.divides else scale.dtype
        return layer.decoded(spelled("ternary", None, stored), content)

    def _keeps(self, name: str) -> bool:
        """Whether a layer stays floats in the mode "online", as transformers matches names."""
        named = any(name.startswith(one) or name.endswith(one) for one in self.kept)
        return named or name == "model.embed_tokens"

    def _codes(self, layer: Layer) -> Callable[[], U8]:
        """What reads the codes u8 [rows, cols]: packed ones, or floats that are ternary."""
        rows, cols = layer.shape
        stored = layer.tensors.get("weight")
        if self.divides or stored is None or stored.dtype == "u8":
            packed = layer.take("weight", ("u8",), (-(-rows // PER_BYTE), cols))
            return lambda: _unpacked(packed, rows)
        weight = layer.take("weight", FLOATS, layer.shape)
        return lambda: _digits(weight, weight.floats())


def _unpacked(packed: LayerTensor, rows: int) -> U8:
    """u8 [rows, cols] of 0, 1, 2."""
    data = packed.bytes()
    quarters = [(data >> np.uint8(2 * place)) & np.uint8(3) for place in range(PER_BYTE)]
    codes = np.concatenate(quarters)[:rows]
    if codes.max() > 2:
        raise packed.fail("holds the digit 3; accepted: 0, 1, 2 (for -1, 0, 1)")
    return codes


def _digits(weight: LayerTensor, values: Floats) -> U8:
    """Floats of -1, 0 and 1 as u8 of 0, 1, 2."""
    odd = ~np.isin(values, (-1, 0, 1))
    if odd.any():
        raise weight.fail(f"holds {values[odd][0]}; accepted: -1, 0, 1 (or packed as u8)")
    return (values + 1).astype(np.uint8)


def _online(layer: Layer) -> Decoded:
    """The ternary weight of a layer of floats."""
    layer.only("weight")
    weight = layer.take("weight", FLOATS, layer.shape)

    def content() -> Content:
        values = weight.floats()
        with np.errstate(invalid="ignore", over="ignore"):
            mean = np.maximum(np.float32(np.abs(values).mean(dtype=np.float64)), SMALLEST_MEAN)
            codes = (np.clip(np.rint(values * (1 / mean)), -1, 1) + 1).astype(np.uint8)
        return Content(codes, np.full((len(values), 1), mean, np.float32))

    return layer.decoded(spelled("ternary", None, weight.dtype), content)
