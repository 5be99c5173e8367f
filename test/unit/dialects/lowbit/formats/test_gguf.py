"""Every type that the `gguf` package dequantizes: bit-exact reading, identical rounding."""

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

from nybble.dialects.lowbit import formats

TYPES = (
    "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S",
    "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS",
)  # fmt: skip
VALUES_ONLY = {name for name in TYPES if name.startswith(("IQ1", "IQ2", "IQ3"))} | {"BF16"}
CODED = [name for name in TYPES if name not in VALUES_ONLY]
ROUNDED = ("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
# Which bytes of a block are f16 scales, for those that random bytes should not leave to chance.
HALVES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82),
    "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "TQ1_0": (52,),
    "TQ2_0": (64,), "IQ1_S": (0,), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,),
    "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip
ONE_BIT_BLOCK, ONE_BIT_BYTES = 128, 18  # ggml's block_q1_0: the scale, then a bit for each weight
SPECIAL_HALVES = (0x0000, 0x8000, 0x0001, 0x83FF, 0x7C00, 0xFC00, 0x7BFF, 0x7E00, 0x3C00)


def oracle_of(name: str) -> GGMLQuantizationType:
    return GGMLQuantizationType[name]


def random_rows(name: str, rows: int, blocks: int) -> tuple[np.ndarray, int]:
    size, stored = GGML_QUANT_SIZES[oracle_of(name)]
    raw = np.random.default_rng(7).integers(0, 256, (rows, blocks * stored), dtype=np.uint8)
    return raw, blocks * size


def assert_same_bits(raw: np.ndarray, cols: int, name: str) -> None:
    with np.errstate(all="ignore"):
        expected = dequantize(raw, oracle_of(name))
    got = formats.get(name.lower()).unpack(raw, cols).dequantize()
    assert got.shape == expected.shape
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got.view(np.uint32)[~nan], expected.view(np.uint32)[~nan])


def test_all_24_types_are_listed() -> None:
    from gguf import quants

    assert set(TYPES) == {kind.name for kind in quants._type_traits}
    assert len(TYPES) == 24


@pytest.mark.parametrize("name", TYPES)
def test_random_bytes_decode_to_the_same_bits(name: str) -> None:
    raw, cols = random_rows(name, 33, 4 if name != "BF16" else 512)
    assert_same_bits(raw, cols, name)


@pytest.mark.parametrize("name", HALVES)
def test_denormal_infinite_and_zero_scales_decode_to_the_same_bits(name: str) -> None:
    raw, cols = random_rows(name, len(SPECIAL_HALVES) ** 2, 1)
    for row, block in enumerate(raw):
        for index, offset in enumerate(HALVES[name]):
            half = SPECIAL_HALVES[row // len(SPECIAL_HALVES) ** index % len(SPECIAL_HALVES)]
            block[offset : offset + 2] = (half & 255, half >> 8)
    assert_same_bits(raw, cols, name)


@pytest.mark.parametrize(("name", "scales"), [("MXFP4", 1), ("NVFP4", 4)])
def test_every_byte_as_a_scale_decodes_to_the_same_bits(name: str, scales: int) -> None:
    raw, cols = random_rows(name, 256, 1)
    raw[:, :scales] = np.arange(256)[:, None]
    assert_same_bits(raw, cols, name)


@pytest.mark.parametrize("name", TYPES)
def test_has_codes_tells_whether_there_are_codes(name: str) -> None:
    raw, cols = random_rows(name, 1, 2)
    form = formats.get(name.lower())
    weight = form.unpack(raw, cols)
    assert form.has_codes == (name not in VALUES_ONLY)
    assert (weight.codes is not None) == (name != "BF16")


@pytest.mark.parametrize("name", CODED)
def test_packing_what_was_unpacked_gives_the_bytes(name: str) -> None:
    raw, cols = random_rows(name, 9, 3)
    if name == "NVFP4":
        raw.reshape(9, 3, 36)[:, :, :4] %= 127  # one byte per value of the scale
    form = formats.get(name.lower())
    packed = form.pack(form.unpack(raw, cols))
    if name != "TQ1_0":  # more bytes than combinations of five trits
        np.testing.assert_array_equal(packed, raw)
    again = form.unpack(packed, cols)
    np.testing.assert_array_equal(again.codes, form.unpack(raw, cols).codes)


@pytest.mark.parametrize("name", ROUNDED)
def test_rounding_is_that_of_ggml(name: str) -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal((64, 1024)).astype(np.float32)
    values *= np.exp2(rng.integers(-12, 9, (64, 1)).astype(np.float32))
    values[3, :256] = 0
    values[5] = -0.375
    values[6, ::2] = 0.5  # ties
    form = formats.get(name.lower())
    np.testing.assert_array_equal(
        form.pack(form.quantize(values)), quantize(values, oracle_of(name))
    )


@pytest.mark.parametrize("name", TYPES)
def test_sizes_are_those_of_gguf(name: str) -> None:
    size, stored = GGML_QUANT_SIZES[oracle_of(name)]
    form = formats.get(name.lower())
    assert form.row_bytes(256 * size) == 256 * stored
    assert form.bits_per_weight == pytest.approx(8 * stored / size)


@pytest.mark.parametrize("name", ["F32", "F16"])
def test_plain_floats_read_their_bytes(name: str) -> None:
    dtype = {"F32": "<f4", "F16": "<f2"}[name]
    values = np.random.default_rng(0).standard_normal((5, 7)).astype(dtype)
    form = formats.get(name.lower())
    weight = form.unpack(values.view(np.uint8), 7)
    np.testing.assert_array_equal(weight.dequantize(), values.astype(np.float32))
    np.testing.assert_array_equal(form.pack(weight), values.view(np.uint8))


def read_one_bit(raw: np.ndarray) -> np.ndarray:
    """What ggml makes of blocks (dequantize_row_q1_0); `gguf` does not decode this type."""
    blocks = raw.reshape(len(raw), -1, ONE_BIT_BYTES)
    scale = blocks[:, :, :2].copy().view("<f2").astype(np.float32)
    bits = np.unpackbits(blocks[:, :, 2:], axis=-1, bitorder="little")
    return np.where(bits == 1, scale, -scale).reshape(len(raw), -1)


def test_one_bit_blocks_are_those_of_ggml() -> None:
    assert GGML_QUANT_SIZES[oracle_of("Q1_0")] == (ONE_BIT_BLOCK, ONE_BIT_BYTES)
    form = formats.get("q1_0")
    raw, cols = random_rows("Q1_0", 33, 4)
    raw.reshape(33, 4, ONE_BIT_BYTES)[:, :, 1] &= 0xBF  # a scale that is finite
    weight = form.unpack(raw, cols)
    np.testing.assert_array_equal(weight.dequantize(), read_one_bit(raw))
    np.testing.assert_array_equal(form.pack(weight), raw)


def test_one_bit_rounding_is_that_of_ggml() -> None:
    values = np.random.default_rng(3).standard_normal((4, 256)).astype(np.float32)
    values[1, :128] = 0
    values[2, 5] = -0.0
    groups = values.reshape(4, 2, ONE_BIT_BLOCK)
    scale = np.add.accumulate(np.abs(groups), axis=-1)[..., -1:] / np.float32(ONE_BIT_BLOCK)
    scale = scale.astype(np.float16).astype(np.float32)
    expected = np.where(groups >= 0, scale, -scale).reshape(values.shape)
    form = formats.get("q1_0")
    np.testing.assert_array_equal(form.quantize(values).dequantize(), expected)
