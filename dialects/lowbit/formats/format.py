"""A number format with what it does: quantize, pack and unpack."""

from functools import lru_cache

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.codec import pack, unpack
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.grammar import (
    is_element,
    parse_correction,
    parse_element,
    parse_grouping,
    parse_scale,
    parse_sparsity,
    parse_zero,
    split,
    store_of,
)
from nybble.dialects.lowbit.formats.names import NAMED, PATTERNS, expand
from nybble.dialects.lowbit.formats.quantize import quantize
from nybble.dialects.lowbit.formats.rounding import NEAREST, Rounding
from nybble.dialects.lowbit.formats.structure import TRANSFORMS, Correction
from nybble.dialects.lowbit.formats.weight import Weight


class Format(Description):
    """A number format; made by `get`."""

    def quantize(self, values: F32, rounding: Rounding = NEAREST) -> Weight:
        """f32 [rows, cols] to canonical form; FormatError says what does not fit."""
        return quantize(self, values, rounding)

    def unpack(self, raw: U8, cols: int) -> Weight:
        """Stored u8 [rows, row_bytes(cols)], or the stream u8 [n], to canonical form."""
        return unpack(self, raw, cols)

    def pack(self, weight: Weight) -> U8:
        """Canonical form to stored u8 [rows, row_bytes(cols)], or to a stream u8 [n] if
        `is_streamed`.
        """
        return pack(self, weight)


def names() -> tuple[str, ...]:
    """Every short name that is not a pattern."""
    return tuple(NAMED)


@lru_cache(maxsize=1024)
def get(spec: str) -> Format:
    """The format of a short name or a spelling; FormatError names what exists."""
    spelled = expand(spec)
    if ":" not in spelled and not is_element(spelled):
        raise FormatError(
            f"unknown format '{spec[:60]}'",
            accepted=f"{', '.join(NAMED)}; {PATTERNS}; or a spelling such as {NAMED['q4_k']}",
        )
    head, fields = split(spelled)
    single = fields.single
    fixes = [parse_correction(text) for text in fields.fixes]
    return Format(
        element=parse_element(head),
        grouping=parse_grouping(single.get("g")),
        scale=parse_scale(single.get("s")),
        zero=parse_zero(single.get("z")),
        sparsity=parse_sparsity(single.get("sparse")),
        corrections=tuple(sorted(fixes, key=_order)),
        store=store_of(fields),
    )


def _order(correction: Correction) -> int:
    """Transforms in the order they are applied in, then what is added, as spelled."""
    kinds = (*TRANSFORMS, type(correction))
    return kinds.index(type(correction))
