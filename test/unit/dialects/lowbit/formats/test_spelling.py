"""Names and spellings of formats: round trips, and what every rejected one is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.names import NAMED

PATTERNED = (
    "w4g128", "w4g32", "w2g128z", "w4g32m", "w8", "w3", "w1g64", "w1g64z", "w8g32z", "a8g32",
    "a8", "a4g128", "bitmod3", "bitmod4", "bitmod3g64",
    "w4n8:16", "w2g64n4:16", "w8n2:4", "w1n1:2",
)  # fmt: skip


@pytest.mark.parametrize("name", [*NAMED, *PATTERNED])
def test_a_name_and_its_spelling_are_one_format(name: str) -> None:
    form = formats.get(name)
    assert form.spec == name
    assert str(form) == name
    assert formats.get(form.spelling) == form
    assert formats.get(form.spelling).spec == name


@pytest.mark.parametrize("name", NAMED)
def test_rows_of_the_table_are_canonical(name: str) -> None:
    assert formats.get(name).spelling == NAMED[name]


def test_names_lists_the_table() -> None:
    assert set(formats.names()) == set(NAMED)


def test_other_spellings_of_a_format_are_it() -> None:
    assert formats.get("u4-8:s=f16:g=32x1.cols:store=q4_0").spec == "q4_0"
    assert formats.get("i4:g=128:s=f16").spec == "w4g128"
    assert formats.get("bitmod3g128").spec == "bitmod3"
    moved = formats.get("u4:g=32:fix=lowrank.4.f16:fix=hadamard.64:fix=smooth")
    assert moved.spec == "u4:g=32:fix=smooth:fix=hadamard.64:fix=lowrank.4.f16"


ELEMENTS = st.one_of(
    st.builds("u{}".format, st.integers(1, 8)),
    st.builds("i{}".format, st.integers(1, 8)),
    st.builds("i{}.narrow".format, st.integers(2, 8)),
    st.integers(1, 8).flatmap(
        lambda width: st.builds(f"u{width}-{{}}".format, st.integers(0, 2**width - 1))
    ),
    st.builds("bip{}".format, st.integers(1, 8)),
    st.sampled_from(("ternary", "e2m1", "e3m2", "e2m3", "e4m3", "e5m2", "nf4", "iq4_nl")),
    st.sampled_from(("bitmod3[3,-3,6,-6]", "bitmod4[5.0]", "bitmod4[5,8]", "bnb_fp4")),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3).map(
        lambda values: f"table[{','.join(map(str, values))},1e7]"
    ),
)
FLOATS = st.sampled_from(("f32", "f16", "bf16"))
SCALES = st.one_of(
    st.sampled_from(("f32", "f16", "bf16", "e8m0", "e4m3")),
    st.builds("u{}*{}".format, st.integers(1, 8), FLOATS),
    st.builds("u{}-1*{}".format, st.integers(1, 8), FLOATS),
    st.builds("u{}*{}+min".format, st.integers(1, 8), FLOATS),
    st.sampled_from(("e4m3*tensor", "e8m0*tensor")),
)
GROUPS = st.builds(
    "{}x{}{}".format,
    st.integers(1, 4096),
    st.integers(1, 32),
    st.sampled_from(("", ".rows", ".tile")),
)
EXTRAS = st.lists(
    st.sampled_from((
        "sparse=2of4", "sparse=4of16.block16", "sparse=bcsr16x16", "sparse=csr", "sparse=bitmap",
        "sparse=bcsr8x4.250", "sparse=csr.50", "sparse=bitmap.500",
        "fix=outliers.coo.10.f16", "fix=lowrank.8.bf16", "fix=hadamard.128", "fix=smooth",
    )),
    max_size=3,
    unique_by=lambda text: text.split("=")[0] + text[:9],
)  # fmt: skip


@given(ELEMENTS, GROUPS, SCALES, st.sampled_from(("", "z=min.f16", "z=neg.u4*f32")), EXTRAS)
def test_any_spelling_round_trips(
    element: str, group: str, scale: str, zero: str, extras: list[str]
) -> None:
    if element.startswith("bitmod"):
        zero = ""
    fields = [f"g={group}", f"s={scale}", *([zero] if zero else []), *extras]
    if sum(field.startswith("sparse") for field in fields) > 1:
        return
    form = formats.get(":".join([element, *fields]))
    again = formats.get(form.spec)
    assert again == form
    assert again.spec == form.spec
    assert formats.get(form.spelling) == form
    assert form.bits_per_weight > 0


@given(st.text(max_size=60))
def test_any_text_is_a_format_or_a_format_error(text: str) -> None:
    try:
        assert formats.get(formats.get(text).spec) == formats.get(text)
    except formats.FormatError as error:
        assert error.message  # noqa: PT017


REJECTED = {
    "": "unknown format ''",
    "q4_9": "unknown format 'q4_9' .*q4_0.*wN",
    "w9g32": "9 bits .*1 to 8",
    "w4g0": "unknown format",
    "a1g32": "narrow range of 1 bits",
    "bitmod5": "unknown format 'bitmod5'",
    "bitmod5[1]:g=32": "BitMoD of 5 bits .*3 or 4",
    "u0:g=32": "integer of 0 bits .*1 to 8",
    "u4-16:g=32": "zero point 16 .*0 to 15",
    "i4-3:g=32": "zero point or narrow range of 'i4'",
    "bip9:g=32": "bipolar integer of 9 bits",
    "e6m1:g=32": "small float e6m1 .*e2m1",
    "frob:g=32": "unknown element 'frob' .*ternary",
    "table[1,2,3]:g=32": "table of 3 values",
    "table[1,inf]:g=32": "f32 values",
    "table[1,1e39]:g=32": "f32 values",
    "table[1,1]:g=32": "not all the same",
    "table[1,,2]:g=32": "decimal numbers",
    "bitmod3[inf]:g=32": "finite numbers",
    "bitmod3[1,2,3]:g=32": "1, 2 or 4 finite",
    "grid.iq9:g=32": "unknown grid 'iq9' .*iq1_s",
    "grid.iq1_s:g=32x8:s=u3*f16:store=iq2_s": "does not fit the blocks",
    "u4:g=0": "group of 0",
    "u4:g=32x0": "super-group of 0",
    "u4:g=rowx2": "super-group of 2",
    "u4:g=many": "grouping 'g=many' .*SIZE",
    "u4:g=9999999": "group of 9999999",
    "u4:g=32:s=f17": "unknown scale type 'f17' .*f32",
    "u4:g=32:s=??": "scale '\\?\\?'",
    "u4:g=32x8:s=u9*f16": "sub-scale 'u9\\*f16'",
    "u4:g=row:s=u4*f16": "a sub-scale needs groups",
    "u4:g=32:s=f16:z=max": "zero 'z=max' .*min.SCALE",
    "u4:g=32:s=f16:z=min.e8m0": "minimum of type e8m0",
    "u4:g=32:s=f16:z=int.u9": "integer zero of 9 bits",
    "i4:g=32:s=f16:z=int.u4": "unsigned uniform element",
    "u4:g=32:z=int.u4": "and a scale",
    "u4:g=32:sparse=4of4": "sparsity '4of4'",
    "u4:g=32:sparse=dense": "sparsity 'sparse=dense' .*NofM",
    "u4:g=32:sparse=bcsr0x4": "sparsity 'bcsr0x4'",
    "u4:g=32:sparse=csr.1000": "1000 permille of weights kept .*1 to 999",
    "u4:g=32:sparse=bcsr4x4.0": "0 permille of weights kept",
    "u4:g=32:s=u4-1*f16+min": "sub-scale 'u4-1\\*f16\\+min' .*without an offset",
    "u4:g=32:s=u4*e8m0+min": "sub-scale 'u4\\*e8m0\\+min'",
    "u4:g=32:s=f16*tensor": "scale 'f16\\*tensor' .*e4m3",
    "u4:g=32:s=f9*tensor": "unknown scale type 'f9'",
    "i4:g=32:s=f16:z=scaled.f16": "stored zero point .*unsigned uniform element",
    "u4:g=32:s=f16:z=scaled.e4m3": "minimum of type e4m3",
    "u4:g=32:s=f16:fix=smooth:fix=smooth": "two corrections of one kind",
    "bf16.huffman:sparse=csr": "lossless weights have no sparsity",
    "bf16.huffman:fix=smooth": "lossless weights have no sparsity",
    "grid.iq1_s:g=32x8:s=u3*f16:sparse=csr": "weights without codes have no sparsity",
    "bitmod3[3,6]:g=32:s=f16:z=min.f16": "a zero beside tables",
    "u4:g=32:fix=magic": "correction 'fix=magic' .*lowrank",
    "u4:g=32:fix=outliers.csc.1.f16": "correction 'outliers.csc",
    "u4:g=32:fix=outliers.csr.0.f16": "0 permille",
    "u4:g=32:fix=lowrank.0.f16": "correction 'lowrank.0",
    "u4:g=32:fix=hadamard.12": "rotation of 12 .*power of two",
    "u4:g=32:store=zip": "unknown store 'zip' .*q4_0",
    "u4:g=64:s=f16:store=q4_0": "does not fit the blocks",
    "u5:g=32:s=f16:store=q4_0": "does not fit the blocks",
    "u4:g=32:s=f32:store=q4_0": "does not fit the blocks",
    "u4:g=32:s=f16:z=min.f16:store=q4_0": "does not fit the blocks",
    "u4:g=32:s=f16:store=q4_1": "does not fit the blocks",
    "i4:g=32:s=f16:sparse=2of4:store=q4_0": "no fixed length: sparsity 2of4",
    "u4:g=32:g=64": "given twice",
    "u4:wide=1": "unknown field 'wide=1' .*g=",
    "f16:g=32": "plain floats have no groups",
    "f16:s=f16": "plain floats have no groups",
    "u4" + ":fix=smooth" * 1000: "characters .*at most",
}


@pytest.mark.parametrize("spec", REJECTED)
def test_a_rejected_spelling_is_told_why(spec: str) -> None:
    with pytest.raises(formats.FormatError, match=REJECTED[spec]) as caught:
        formats.get(spec)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, NybbleError)
    assert len(str(caught.value)) < 1000


def test_all_of_so_many_weights_are_the_dense_format():
    assert formats.get("w4n16:16").spec == "w4"
    assert formats.get("w2g64n4:4").spec == "w2g64"
