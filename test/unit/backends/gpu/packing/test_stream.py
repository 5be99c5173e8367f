"""Packing into streams and back, for every format and type of activations."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import ARCHS
from nybble.backends.gpu.kernels.matmul.decode import half_bits
from nybble.backends.gpu.packing.fields import MANTISSA, Floats, Integers
from nybble.backends.gpu.packing.kind import Small, weight_kind
from nybble.backends.gpu.packing.pack import PackingError, pack_stream, unpack_stream
from nybble.backends.gpu.packing.placement import Placement, fewest_fragments
from nybble.backends.gpu.packing.stream import LOAD, StreamLayout
from nybble.backends.gpu.products import plane_layout, product_spec, stream_layout
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import FormatError

FORMATS = [
    *(f"w{bits}g128" for bits in range(1, 9)), "w4g16", "w4g32z", "w4g64m", "w2", "w4g512",
    "b1_58", "q4_0", "q4_1", "q8_0", "q2_k", "q4_k", "q6_k", "nf4", "iq4_nl", "bnb_fp4", "fp4",
    "mxfp4", "nvfp4", "nvfp4_scaled", "mxfp6_e2m3", "mxfp8_e4m3", "fp8_e5m2", "spqr3",
]  # fmt: skip


def random_parts(layout: StreamLayout, seed: int):
    rng = np.random.default_rng(seed)
    shape = (layout.rows, layout.cols)
    codes = rng.integers(0, 2**layout.placement.bits, shape).astype(np.uint8)
    groups = (layout.rows, -(-layout.cols // layout.group))
    scale = (rng.integers(-127, 128, groups) / 64).astype(np.float32)
    zero = (rng.integers(-127, 128, groups) / 8).astype(np.float32) if layout.zero else None
    return codes, scale, zero


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_unpacking_is_the_inverse_of_packing(name: str, dtype: str):
    for rows, cols, fragments in ((33, 1024, 0), (200, 512, 4)):
        kind = weight_kind(formats.get(name), cols)
        if kind.bits > MANTISSA["bf16"] and dtype == "bf16" and not isinstance(kind.meaning, Small):
            continue
        layout = stream_layout(kind, rows, cols, dtype, fragments)
        codes, scale, zero = random_parts(layout, rows)
        packed = pack_stream(layout, codes, scale, zero)
        assert packed.shape == (layout.bytes,)
        assert layout.record_bytes % LOAD == 0
        found = unpack_stream(layout, packed)
        np.testing.assert_array_equal(found[0], codes)
        np.testing.assert_array_equal(found[1], scale)
        assert (found[2] is None) == (zero is None)
        if zero is not None and found[2] is not None:
            np.testing.assert_array_equal(found[2], zero)


@pytest.mark.parametrize(
    "name", ["w1g128", "w1", "w2g256", "w3g128z", "w4g512", "w4g128m", "b1_58"]
)
def test_unpacking_planes_is_the_inverse_of_packing_them(name: str):
    for rows, cols, fragments in ((33, 1024, 0), (70, 512, 4)):
        layout = plane_layout(weight_kind(formats.get(name), cols), rows, cols, fragments)
        codes, scale, zero = random_parts(layout, rows)
        packed = pack_stream(layout, codes, scale, zero)
        assert packed.shape == (layout.bytes,)
        found = unpack_stream(layout, packed)
        np.testing.assert_array_equal(found[0], codes)
        np.testing.assert_array_equal(found[1], scale)
        assert (found[2] is None) == (zero is None)
        if zero is not None and found[2] is not None:
            np.testing.assert_array_equal(found[2], zero)


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_reads_the_same_stream(arch: str):
    specs = [product_spec("w4g128", 64, 512, 1, one) for one in (arch, "sm_90a")]
    specs.append(product_spec("w4g128", 64, 512, 64, arch, "i8"))
    assert len({one.layout for one in specs}) == 1, "and for integers too"


def test_a_scale_that_would_be_rounded_is_refused():
    layout = stream_layout(weight_kind(formats.get("w4g64"), 64), 16, 64, "f16")
    codes, scale, _ = random_parts(layout, 0)
    scale[0, 0] = 1 + 2.0**-12
    with pytest.raises(PackingError, match=r"a scale or zero of 1\.000244.* in a layout of f16"):
        pack_stream(layout, codes, scale)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_integers_are_an_offset_above_their_codes(bits: int, dtype: str):
    if bits > MANTISSA[dtype]:
        return
    placement = Placement(bits, fewest_fragments(bits))
    fields = Integers(placement, dtype)
    codes = np.arange(2**bits)
    for fragment in range(placement.fragments):
        assert fields.offset(fragment, 0) == fields.offset(fragment, 2)
        for register in range(4):
            words = placed(placement, fragment, register, codes)
            found = words_to_bits(words, fields.takes(fragment, register))
            found |= fields.magic(fragment, register) & 0xFFFF
            floats = half_values(found, dtype)
            np.testing.assert_array_equal(floats, fields.offset(fragment, register) + codes)


@pytest.mark.parametrize("name", ["e2m1", "e3m2", "e2m3", "e4m3", "e5m2"])
def test_small_floats_are_a_power_of_two_away_from_what_they_mean(name: str):
    element = formats.get(f"{name}:g=32:s=f16").element
    bits, mantissa = element.bits, int(name[3])
    placement = Placement(bits, fewest_fragments(bits))
    codes = np.arange(2**bits)
    words = placed(placement, 0, 1, codes)
    found = words_to_bits(words, Floats(placement, mantissa, "f16").takes(0, 1))
    assert element.table is not None
    meant = element.table * element.unit
    finite = np.isfinite(meant)
    values = half_values(found[finite], "f16") * 2.0 ** (15 - (2 ** (int(name[1]) - 1) - 1))
    np.testing.assert_array_equal(values, meant[finite])


def placed(placement: Placement, fragment: int, register: int, codes: np.ndarray):
    """The words of a tile that have a code in one place: [words, codes]."""
    words = np.zeros((placement.words, len(codes)), np.int64)
    for plane in placement.planes:
        word, bit = placement.position(plane, fragment, register)
        words[word] |= (codes >> plane.low & 2**plane.width - 1) << bit
    return words


def words_to_bits(words: np.ndarray, takes: list):
    """The 16 low bits of a register."""
    made = np.zeros(words.shape[1], np.int64)
    for take in takes:
        word = words[take.word]
        moved = word >> take.shift if take.shift >= 0 else word << -take.shift
        made |= moved & take.mask
    return made


def half_values(bits: np.ndarray, dtype: str):
    if dtype == "f16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def test_halves_are_rounded_to_nearest_even():
    assert half_bits([1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8], "bf16") == [0x3F80, 0x3F80, 0x3F82]
    assert half_bits([1.0, -2.0], "f16") == [0x3C00, 0xC000]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("f16", "no code per weight"),
        ("iq2_xxs", "no code per weight"),
        ("i4:g=32:s=f16:fix=lowrank.4.f16", "lowrank.4.f16"),
        ("bitmod4", "codes of bitmod4"),
        ("i4:g=32:s=f16:sparse=2of4", "2of4"),
        ("table[0.0,1.0,2.5,4.0]:g=32:s=f16", "codes of table"),
        ("i4:g=32.rows:s=f16", "groups across rows"),
    ],
)
def test_what_kernels_cannot_read_is_refused(name: str, reason: str):
    with pytest.raises(FormatError, match=reason):
        weight_kind(formats.get(name), 256)
