"""Every family of DESIGN is expressible as data; what has no codec yet says so."""

import numpy as np
import pytest

from nybble.dialects.lowbit import formats

# Family -> spelling, bits per weight as described, stored bits per weight of a 256 x 512 matrix.
STREAMED = {
    "DFloat11": ("df11", 11.0, 10.67),
    "SpQR": ("spqr3", 3.945, 4.01),
    "GEAR": ("u4:g=32:s=f16:z=min.f16:fix=lowrank.4.f16:fix=outliers.coo.20.f16", 6.6, 6.98),
    "KIVI keys": ("u2:g=32.rows:s=f16:z=min.f16", 3.0, 3.01),
    "SmoothQuant+": ("i4:g=128:s=f16:fix=smooth", 4.125, 4.26),
    "2:4": ("i4:g=128:s=f16:sparse=2of4", 3.125, 3.13),
    "FlightLLM": ("i4:g=128:s=f16:sparse=4of16.block16", 1.1875, 1.20),
    "BCSR": ("i8:g=128:s=f16:sparse=bcsr16x16", 8.1875, 8.20),
    "BCSR at 25%": ("i8:g=128:s=f16:sparse=bcsr16x16.250", 2.140625, 2.16),
    "CSR": ("f16:sparse=csr.100", 3.2, 3.28),
    "bitmap": ("i4:g=32:s=f16:sparse=bitmap.500", 3.5, 3.51),
    "NVFP4 with its f32": ("nvfp4_scaled", 4.5, 4.51),
}
DATA_ONLY = {
    "vector codebook": ("iq2_xxs", 2.0625, "grid.iq2_xxs"),
    "vector codebook without a store": ("grid.iq1_s:g=32x8:s=u3*f16", 1.15625, "grid.iq1_s"),
}


@pytest.mark.parametrize("family", DATA_ONLY)
def test_families_without_a_quantizer_say_so(family: str) -> None:
    spec, bits, reason = DATA_ONLY[family]
    form = formats.get(spec)
    assert form.bits_per_weight == pytest.approx(bits)
    form.check_shape((256, 512))
    with pytest.raises(formats.FormatError, match=f"not supported .*{reason}"):
        form.quantize(np.zeros((256, 512), np.float32))


@pytest.mark.parametrize("family", STREAMED)
def test_streamed_families_say_so_and_have_a_size(family: str) -> None:
    spec, bits, stored = STREAMED[family]
    form = formats.get(spec)
    assert form.is_streamed
    assert form.bits_per_weight == pytest.approx(bits)
    values = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    packed = form.pack(form.quantize(values))
    assert packed.ndim == 1
    assert 8 * packed.size / values.size == pytest.approx(stored, abs=0.02)
    with pytest.raises(formats.FormatError, match=r"rows of .* have no fixed length"):
        form.row_bytes(512)


def test_vector_codes_without_a_store_have_no_codec() -> None:
    form = formats.get("grid.iq1_s:g=32x8:s=u3*f16")
    with pytest.raises(formats.FormatError, match=r"no storage codec: its element grid\.iq1_s"):
        form.row_bytes(256)
    with pytest.raises(formats.FormatError, match="no storage codec"):
        form.unpack(np.zeros((1, 1), np.uint8), 256)


def test_shapes_of_scales() -> None:
    assert formats.get("w4g32").scale_shape(6, 64) == (6, 2)
    assert formats.get("w4").scale_shape(6, 64) == (6, 1)
    assert formats.get("u2:g=32.rows:s=f16").scale_shape(64, 5) == (2, 5)
    assert formats.get("u2:g=row.rows:s=f16").scale_shape(64, 5) == (1, 5)
    assert formats.get("spqr3").super_shape(17, 64) == (2, 4)
    assert formats.get("q4_k").super_shape(17, 512) == (17, 2)
    assert formats.get("u2:g=4x2.rows:s=u4*f16").super_shape(64, 5) == (8, 5)


def test_legal_shapes_join_every_step() -> None:
    form = formats.get("i4:g=24:s=f16:sparse=4of16.block16")
    assert form.block == 48
    form.check_shape((32, 96))
    with pytest.raises(formats.FormatError, match="multiple of 48 columns"):
        form.check_shape((32, 24))
    with pytest.raises(formats.FormatError, match="multiple of 16 rows"):
        form.check_shape((8, 48))
    with pytest.raises(formats.FormatError, match="multiple of 8 rows"):
        formats.get("f16:sparse=bcsr8x4").check_shape((4, 4))
    with pytest.raises(formats.FormatError, match="multiple of 64 rows"):
        formats.get("u2:g=32x2.rows:s=f16").check_shape((32, 5))
    with pytest.raises(formats.FormatError, match="multiple of 128 columns"):
        formats.get("i4:g=32:s=f16:fix=hadamard.128").check_shape((1, 64))


def test_group_of_whole_rows_depends_on_the_shape() -> None:
    form = formats.get("w8")
    assert form.group_size(576) == 576
    with pytest.raises(formats.FormatError, match="whole row"):
        _ = form.group
    with pytest.raises(formats.FormatError, match="lie across rows"):
        formats.get("u2:g=32.rows:s=f16").group_size(64)
    assert formats.get("f32").group == 1
    assert formats.get("q4_k").group == 32


def test_formats_are_frozen_and_hashable() -> None:
    form = formats.get("q4_1")
    assert {form: 1}[formats.get(form.spelling)] == 1
    with pytest.raises(AttributeError):
        form.store = "q4_0"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("spec", "bits"), [("w4g128", 4.125), ("w2g128z", 2.140625), ("w4g32m", 5.0), ("f16", 16)]
)
def test_bits_per_weight(spec: str, bits: float) -> None:
    form = formats.get(spec)
    assert form.bits_per_weight == pytest.approx(bits)
    stored = 8 * form.row_bytes(1024) / 1024
    assert bits <= stored <= bits + 8 / 128  # whole bytes for what a group shares
