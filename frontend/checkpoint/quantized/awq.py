"""AWQ checkpoints, as AutoAWQ writes them in its "gemm" layout.

A layer [rows, cols] is `qweight` i32 [cols, rows / 8], `qzeros` i32 [groups, rows / 8] and `scales`
[groups, rows]. A word holds the codes of 8 rows, lowest bits first, in the order 0, 2, 4, 6, 1, 3,
5, 7. W = scale * (code - zero).
Source: `WQLinear_GEMM.from_linear` and `dequantize_gemm` of autoawq 0.2.9.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.quantized.layer import FLOATS, Content, Decoded, Layer, LayerTensor
from nybble.frontend.checkpoint.quantized.numbers import U8, unpack_words
from nybble.frontend.checkpoint.quantized.spelling import checked_group, uniform

BITS = 4
PER_WORD = 32 // BITS
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PLACES = np.argsort(ORDER)


@dataclass(frozen=True)
class Awq:
    """What `quantization_config` says of every layer; group: None for a whole row."""

    group: int | None
    parts: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales")
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"version": "gemm", "zero_point": True}
    )

    @staticmethod
    def read(fields: Fields, metadata: Mapping[str, str]) -> "Awq":
        """The configuration in `fields`; CheckpointError names what is not supported."""
        fields.integer("bits", BITS, BITS)
        fields.choice("version", ("gemm", "GEMM"))
        if not fields.flag("zero_point"):
            raise fields.fail("zero_point", "true")
        return Awq(checked_group(fields))

    def decode(self, layer: Layer) -> Decoded:
        """The weight of a layer; CheckpointError for tensors that do not fit together."""
        rows, cols = layer.shape
        groups = layer.groups(self.group)
        words = -(-rows // PER_WORD)
        qweight = layer.take("qweight", ("i32",), (cols, words))
        qzeros = layer.take("qzeros", ("i32",), (groups, words))
        scales = layer.take("scales", FLOATS, (groups, rows))

        def content() -> Content:
            scale = np.ascontiguousarray(scales.floats().T)
            return Content(_rows(qweight, rows), scale, _rows(qzeros, rows))

        return layer.decoded(uniform(BITS, self.group, scales.dtype, f"int.u{BITS}"), content)


def _rows(tensor: LayerTensor, rows: int) -> U8:
    """Words i32 [n, words] as the codes u8 [rows, n]."""
    words = tensor.integers()
    stored = unpack_words(words, BITS, words.shape[1] * PER_WORD)
    ordered = stored.reshape(*words.shape, PER_WORD)[..., _PLACES]
    return np.ascontiguousarray(ordered.reshape(len(words), -1)[:, :rows].T)
