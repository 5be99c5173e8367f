"""GPTQ checkpoints, as AutoGPTQ and GPTQModel write them.

A layer [rows, cols] is `qweight` i32 [cols * bits / 32, rows], a stream of codes down each column;
`qzeros` i32 [groups, rows * bits / 32], a stream along each row; `scales` [groups, rows]; and
`g_idx` i32 [cols], the group of each column. W = scale * (code - zero).
Source: `pack_original` and `convert_gptq_v1_to_v2_format_module` of gptqmodel 7.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.quantized.layer import FLOATS, Content, Decoded, Layer, LayerTensor
from nybble.frontend.checkpoint.quantized.numbers import U8, Integers, unpack_words, words_of
from nybble.frontend.checkpoint.quantized.spelling import checked_group, uniform

WIDTHS = (2, 3, 4, 8)
LAYOUTS = ("gptq", "gptq_v2")


@dataclass(frozen=True)
class Gptq:
    """What `quantization_config` says of every layer.

    group: weights per scale, None for a whole row. symmetric: all zeros are the middle code.
    less_one: the file's first version, which stores each zero less one.
    """

    bits: int
    group: int | None
    symmetric: bool
    less_one: bool
    parts: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales", "g_idx")
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"checkpoint_format": "gptq", "format": "gptq", "pack_dtype": "int32", "sym": True}
    )

    @staticmethod
    def read(fields: Fields, metadata: Mapping[str, str]) -> "Gptq":
        """The configuration in `fields`; CheckpointError names what is not supported."""
        bits = fields.integer("bits", WIDTHS[0], WIDTHS[-1])
        if bits not in WIDTHS:
            raise fields.fail("bits", f"one of {', '.join(map(str, WIDTHS))}")
        for key in ("dynamic", "is_marlin_format"):
            if fields.get(key):
                raise fields.fail(key, "absent (not supported)")
        fields.choice("pack_dtype", ("int32",))
        layout = fields.choice("checkpoint_format", LAYOUTS)
        fields.choice("format", LAYOUTS)
        return Gptq(bits, checked_group(fields), fields.flag("sym"), layout == LAYOUTS[0])

    def decode(self, layer: Layer) -> Decoded:
        """The weight of a layer; CheckpointError for tensors that do not fit together."""
        rows, cols = layer.shape
        groups = layer.groups(self.group)
        qweight = layer.take("qweight", ("i32",), (words_of(cols, self.bits), rows))
        qzeros = layer.take("qzeros", ("i32",), (groups, words_of(rows, self.bits)))
        scales = layer.take("scales", FLOATS, (groups, rows))
        order = layer.take("g_idx", ("i32",), (cols,)) if "g_idx" in layer.tensors else None

        def content() -> Content:
            codes = unpack_words(qweight.integers().T, self.bits, cols)
            zeros = np.ascontiguousarray(self._zeros(qzeros, rows).T)
            scale = np.ascontiguousarray(scales.floats().T)
            if order is not None:
                places = order.group_places(groups)
                scale, zeros = scale[:, places], zeros[:, places]
            return Content(codes, scale, None if self.symmetric else zeros)

        zero = None if self.symmetric else f"int.u{self.bits}"
        return layer.decoded(uniform(self.bits, self.group, scales.dtype, zero), content)

    def _zeros(self, stored: LayerTensor, rows: int) -> U8:
        """u8 [groups, rows]."""
        words: Integers = stored.integers()
        if self.less_one and self.bits != 3:
            # As the writer took ones off whole words, a borrow included.
            ones = np.uint32(sum(1 << place for place in range(0, 32, self.bits)))
            words = (words.view(np.uint32) + ones).view(np.int32)
        zeros = unpack_words(words, self.bits, rows)
        if self.less_one and self.bits == 3:
            zeros = (zeros + np.uint8(1)) & np.uint8(7)
        middle = 2 ** (self.bits - 1)
        if self.symmetric and (zeros != middle).any():
            odd = int(zeros[zeros != middle][0])
            raise stored.fail(f"has a zero of {odd}; a symmetric checkpoint has {middle} only")
        return zeros
