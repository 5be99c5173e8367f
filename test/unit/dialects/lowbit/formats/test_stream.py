"""Streams of sections: what is no stream is refused, whatever its bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.sections import Reader, Writer

SPECS = (
    "df11", "spqr3", "nvfp4_scaled", "i4:g=8:s=f16:sparse=2of4", "f16:sparse=csr.300",
    "i8:g=8:s=f16:sparse=bcsr2x4.500", "u4:g=8:s=f16:z=int.u4:sparse=bitmap.500",
    "u4:g=16:s=f16:fix=smooth:fix=outliers.coo.100.f16:fix=lowrank.1.f16",
)  # fmt: skip


def sample(spec: str) -> np.ndarray:
    form = formats.get(spec)
    values = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    return form.pack(form.quantize(values))


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_streams_decode_or_are_refused(spec: str, data: st.DataObject) -> None:
    form, raw = formats.get(spec), sample(spec)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, raw.size - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.sampled_from((raw.size, raw.size, raw.size - 1, raw.size // 2, 7)))]
    try:
        weight = form.unpack(raw, 32)
    except formats.FormatError:
        return
    assert weight.dequantize().shape == weight.shape


@pytest.mark.parametrize("spec", SPECS)
def test_cut_or_longer_streams_are_refused(spec: str) -> None:
    form, raw = formats.get(spec), sample(spec)
    for size in (0, 8, 30, raw.size - 8):
        with pytest.raises(formats.FormatError, match="a stream of"):
            form.unpack(raw[:size], 32)
    with pytest.raises(formats.FormatError, match=rf"{raw.size} by its header"):
        form.unpack(np.append(raw, np.zeros(8, np.uint8)), 32)


def test_streams_say_what_they_are_of() -> None:
    form, raw = formats.get("spqr3"), sample("spqr3")
    with pytest.raises(formats.FormatError, match=r"a stream of 32 columns .*64 columns"):
        form.unpack(raw, 64)
    with pytest.raises(formats.FormatError, match=r"uint8 of shape \(n,\)"):
        form.unpack(raw[None], 32)
    with pytest.raises(formats.FormatError, match="int8 array"):
        form.unpack(raw.view(np.int8), 32)
    other = formats.get("nvfp4_scaled")
    with pytest.raises(formats.FormatError, match="a section of"):
        other.unpack(raw, 32)


@pytest.mark.parametrize("spec", SPECS)
def test_a_header_of_too_many_rows_is_refused(spec: str) -> None:
    raw = sample(spec)
    raw[:8] = np.array([1 << 39], "<u8").view(np.uint8)
    with pytest.raises(formats.FormatError, match="a section of"):
        formats.get(spec).unpack(raw, 32)


def test_sections_left_over_are_refused() -> None:
    reader = Reader(sample("df11"))
    reader.take(np.uint8)
    with pytest.raises(formats.FormatError, match="3 sections too many"):
        reader.finish()


def test_sections_start_at_multiples_of_8() -> None:
    target = Writer()
    target.put(np.array([1, 2, 3], np.uint8))
    target.put(np.array([9], "<u4"))
    stream = target.finish(5, 6)
    assert stream[:40].view("<u8").tolist() == [5, 6, 2, 3, 4]
    assert stream[40:48].tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert stream[48:].view("<u4").tolist() == [9, 0]


@pytest.mark.parametrize("width", range(1, 11))
def test_small_integers(width: int) -> None:
    numbers = np.random.default_rng(width).integers(0, 2**width, 37).astype(np.uint16)
    target = Writer()
    target.small(numbers, width)
    np.testing.assert_array_equal(Reader(target.finish(1, 37)).small(37, width), numbers)


def test_weights_without_their_parts_are_refused() -> None:
    from dataclasses import replace

    values = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    for spec, missing in (
        ("spqr3", "outliers"), ("spqr3", "zero_points"), ("spqr3", "scale_parts"),
        ("i4:g=8:s=f16:sparse=2of4", "kept"), ("i4:g=8:s=f16:fix=smooth", "smoothing"),
        ("i4:g=8:s=f16:fix=lowrank.1.f16", "low_rank"), ("w4g32z", "zero_codes"),
        ("q3_k", "scale_parts"),
    ):  # fmt: skip
        form = formats.get(spec)
        weight = form.quantize(np.repeat(values, 8, axis=1))
        with pytest.raises(formats.FormatError, match=r"without|parts"):
            form.pack(replace(weight, **{missing: None}))


def test_outliers_out_of_order_are_refused() -> None:
    from dataclasses import replace

    form = formats.get("i4:g=8:s=f16:fix=outliers.csr.100.f16")
    weight = form.quantize(np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32))
    assert weight.outliers is not None
    turned = formats.Outlying(
        weight.outliers.rows[::-1].copy(), weight.outliers.cols, weight.outliers.values
    )
    with pytest.raises(formats.FormatError, match="not in the order"):
        form.pack(replace(weight, outliers=turned))


def test_places_of_outliers_are_checked() -> None:
    form = formats.get("i4:g=8:s=f16:fix=outliers.coo.100.f16")
    weight = form.quantize(np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32))
    packed = form.pack(weight)
    sizes = packed[24 : 24 + 8 * int(packed[16:24].view("<u8")[0])].view("<u8")
    start = 24 + 8 * len(sizes) + int(sum(-(-int(size) // 8) * 8 for size in sizes[:-3]))
    packed[start] = 4
    with pytest.raises(formats.FormatError, match=r"places of outliers .*\(4, 32\)"):
        form.unpack(packed, 32)
