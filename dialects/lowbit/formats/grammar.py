"""The spelled grammar of number formats, read into descriptions.

    spec    = element { ":" field }
    element = f32 | f16 | bf16 | bf16.huffman | iN | iN.narrow | uN | uN-ZERO | bipN | ternary
            | e2m1 | e3m2 | e2m3 | e4m3 | e5m2 | nf4 | iq4_nl | bnb_fp4 | table[V,V,..]
            | bitmodN[V,..] | grid.NAME
    field   = g=SIZE[xCOUNT][.rows|.tile]    SIZE weights or "row"; COUNT groups in a super-group
            | s=TYPE | s=uN[-OFFSET]*TYPE[+min] | s=TYPE*tensor
            | z=min.SCALE | z=neg.SCALE | z=scaled.SCALE | z=int.uN
            | sparse=NofM[.blockR] | sparse=bcsrRxC[.PERMILLE] | sparse=csr|bitmap[.PERMILLE]
            | fix=outliers.coo|csr.PERMILLE.TYPE | fix=lowrank.RANK.TYPE | fix=hadamard.SIZE
            | fix=smooth
            | store=NAME
    TYPE    = f32 | f16 | bf16 | e8m0 | e4m3

Fields may come in any order, each once (`fix` any number of times).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from nybble.dialects.lowbit.formats.element import (
    Bipolar,
    Element,
    EntropyCoded,
    PlainFloat,
    Ternary,
    TwoDigits,
    Uniform,
)
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.legality import NATIVE
from nybble.dialects.lowbit.formats.scale import (
    FloatScale,
    IntegerZero,
    ScaledZero,
    ScaleTree,
    StoredMin,
    SuperScale,
    TensorScale,
    Zero,
)
from nybble.dialects.lowbit.formats.structure import (
    Blocks,
    Correction,
    Grouping,
    LowRank,
    NOfM,
    Outliers,
    Rotation,
    Smoothing,
    Sparsity,
    Unstructured,
)
from nybble.dialects.lowbit.formats.table_element import BitMod, Codebook, Grid, SmallFloat
from nybble.dialects.lowbit.formats.tables import TABLES

_FIXED: dict[str, Element] = {
    "f32": PlainFloat("f32"),
    "f16": PlainFloat("f16"),
    "bf16": PlainFloat("bf16"),
    "bf16.huffman": EntropyCoded(),
    "i8x2": TwoDigits(),
    "ternary": Ternary(),
    **{name: Codebook(name, values) for name, values in TABLES.items()},
}
_ELEMENTS = (
    "f32, f16, bf16, bf16.huffman, iN[.narrow], uN[-ZERO], bipN, ternary, eXmY, "
    f"{', '.join(TABLES)}, table[V,..], bitmodN[V,..], grid.NAME"
)
_FIELDS = "g=, s=, z=, sparse=, fix=, store="
_SUM = "uN[-OFFSET]*TYPE[+min], e4m3*tensor or TYPE, of f32, f16, bf16, e8m0, e4m3"
_MAX_LENGTH = 8192


@dataclass
class Fields:
    """The fields of one spelling, by key, as text."""

    single: dict[str, str] = field(default_factory=dict[str, str])
    fixes: list[str] = field(default_factory=list[str])


def split(spec: str) -> tuple[str, Fields]:
    """The element's text and the fields of a spelling."""
    if len(spec) > _MAX_LENGTH:
        raise FormatError(f"a format of {len(spec)} characters", accepted=f"at most {_MAX_LENGTH}")
    head, *rest = spec.split(":")
    fields = Fields()
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals or key not in ("g", "s", "z", "sparse", "fix", "store"):
            raise FormatError(f"unknown field '{part}' in format '{spec}'", accepted=_FIELDS)
        if key == "fix":
            fields.fixes.append(value)
        elif key in fields.single:
            raise FormatError(f"field '{key}=' given twice in format '{spec}'")
        else:
            fields.single[key] = value
    return head, fields


def store_of(fields: Fields) -> str:
    """Name of the storage layout."""
    return fields.single.get("store", NATIVE)


def is_element(text: str) -> bool:
    """Whether the text has the form of an element."""
    return _match_element(text) is not None


def parse_element(text: str) -> Element:
    """An element by its text; FormatError names what exists."""
    make = _match_element(text)
    if make is None:
        raise FormatError(f"unknown element '{text[:60]}'", accepted=_ELEMENTS)
    return make()


def _match_element(text: str) -> Callable[[], Element] | None:
    """What makes the element of this text; None if no kind has such a text."""
    if text in _FIXED:
        return lambda: _FIXED[text]
    if match := re.fullmatch(r"(i|u|bip)([0-9]{1,2})(?:-([0-9]{1,3}))?(\.narrow)?", text):
        kind, width, offset, narrow = match.groups()
        return partial(_make_integer, kind, int(width), offset, narrow is not None)
    if match := re.fullmatch(r"(?:table|bitmod([0-9]))\[([-+0-9.,einf]*)\]", text):
        return partial(_make_listed, match[1], match[2])
    if match := re.fullmatch(r"e([1-9])m([1-9])", text):
        return partial(SmallFloat, int(match[1]), int(match[2]))
    if match := re.fullmatch(r"grid\.([a-z0-9_]{1,16})", text):
        return partial(Grid, match[1])
    return None


def _make_integer(kind: str, width: int, offset: str | None, narrow: bool) -> Element:
    if (offset and kind != "u") or (narrow and kind != "i"):
        raise FormatError(
            f"a zero point or narrow range of '{kind}{width}'", accepted="uN-ZERO, iN.narrow"
        )
    if kind == "bip":
        return Bipolar(width)
    signed = 2 ** (width - 1) if kind == "i" and width else 0
    return Uniform(width, int(offset) if offset else signed, narrow)


def _make_listed(bitmod: str | None, text: str) -> Element:
    try:
        values = tuple(float(value) for value in text.split(","))
    except ValueError as error:
        raise FormatError(f"values '{text[:60]}'", accepted="decimal numbers") from error
    return BitMod(int(bitmod), values) if bitmod else Codebook("", values)


def parse_grouping(text: str | None) -> Grouping:
    """`SIZE[xCOUNT][.rows|.tile]`; None is whole rows."""
    if text is None:
        return Grouping()
    match = re.fullmatch(r"(row|[0-9]{1,7})(?:x([0-9]{1,4}))?(?:\.(rows|cols|tile))?", text)
    if match is None:
        raise FormatError(f"grouping 'g={text[:40]}'", accepted="SIZE[xCOUNT][.rows|.tile] or row")
    size = None if match[1] == "row" else int(match[1])
    return Grouping(size, int(match[2] or 1), match[3] or "cols")


def parse_scale(text: str | None) -> ScaleTree | None:
    """`TYPE`, `TYPE*tensor` or `uN[-OFFSET]*TYPE[+min]`."""
    if text is None:
        return None
    match = re.fullmatch(r"u([0-9])(?:-([0-9]{1,3}))?\*([a-z0-9]{2,4})(\+min)?", text)
    if match is not None:
        base = FloatScale(match[3])
        return SuperScale(int(match[1]), int(match[2] or 0), base, match[4] is not None)
    if match := re.fullmatch(r"([a-z0-9]{2,4})\*tensor", text):
        return TensorScale(FloatScale(match[1]))
    if not re.fullmatch(r"[a-z0-9]{2,4}", text):
        raise FormatError(f"scale '{text[:40]}'", accepted=_SUM)
    return FloatScale(text)


def parse_zero(text: str | None) -> Zero | None:
    """`min.SCALE`, `neg.SCALE`, `scaled.SCALE` or `int.uN`."""
    if text is None:
        return None
    kind, _, rest = text.partition(".")
    if kind in ("min", "neg", "scaled"):
        tree = parse_scale(rest)
        assert tree is not None
        return ScaledZero(tree) if kind == "scaled" else StoredMin(tree, negated=kind == "neg")
    match = re.fullmatch(r"int\.u([0-9])", text)
    if match is None:
        raise FormatError(
            f"zero 'z={text[:40]}'", accepted="min.SCALE, neg.SCALE, scaled.SCALE, int.uN"
        )
    return IntegerZero(int(match[1]))


def parse_sparsity(text: str | None) -> Sparsity | None:
    """`NofM[.blockR]`, `bcsrRxC[.PERMILLE]`, `csr[.PERMILLE]` or `bitmap[.PERMILLE]`."""
    if text is None:
        return None
    if match := re.fullmatch(r"([0-9]{1,4})of([0-9]{1,4})(?:\.block([0-9]{1,4}))?", text):
        return NOfM(int(match[1]), int(match[2]), int(match[3] or 1))
    if match := re.fullmatch(r"bcsr([0-9]{1,4})x([0-9]{1,4})(?:\.([0-9]{1,4}))?", text):
        return Blocks(int(match[1]), int(match[2]), int(match[3]) if match[3] else None)
    if match := re.fullmatch(r"(csr|bitmap)(?:\.([0-9]{1,4}))?", text):
        return Unstructured(match[1], int(match[2]) if match[2] else None)
    raise FormatError(
        f"sparsity 'sparse={text[:40]}'",
        accepted="NofM[.blockR], bcsrRxC[.PERMILLE], csr[.PERMILLE], bitmap[.PERMILLE]",
    )


def parse_correction(text: str) -> Correction:
    """`outliers.INDEX.PERMILLE.TYPE`, `lowrank.RANK.TYPE`, `hadamard.SIZE` or `smooth`."""
    if match := re.fullmatch(r"outliers\.([a-z]{3})\.([0-9]{1,3})\.([a-z0-9]{2,4})", text):
        return Outliers(match[1], int(match[2]), match[3])
    if match := re.fullmatch(r"lowrank\.([0-9]{1,4})\.([a-z0-9]{2,4})", text):
        return LowRank(int(match[1]), match[2])
    if match := re.fullmatch(r"hadamard\.([0-9]{1,5})", text):
        return Rotation(int(match[1]))
    if text == "smooth":
        return Smoothing()
    raise FormatError(
        f"correction 'fix={text[:40]}'",
        accepted="outliers.coo|csr.PERMILLE.TYPE, lowrank.RANK.TYPE, hadamard.SIZE, smooth",
    )
