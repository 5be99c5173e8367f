"""Every family of DESIGN is expressible as data; what has no codec yet says so."""

import numpy as np
import pytest

from nybble.dialects.lowbit import formats

# Family -> spelling, bits per weight, what its missing quantizer or codec names.
DATA_ONLY = {
    "DFloat11": ("df11", 11.0, "bf16.huffman"),
    "vector codebook": ("iq2_xxs", 2.0625, "grid.iq2_xxs"),
    "vector codebook without a store": ("grid.iq1_s:g=32x8:s=u3*f16", 1.15625, "grid.iq1_s"),
    "KIVI keys": ("u2:g=32.rows:s=f16:z=min.f16", 3.0, "across rows"),
    "HALO": ("i4:g=128:s=f16:fix=hadamard.128", 4.125, "hadamard.128"),
    "SmoothQuant+": ("i4:g=128:s=f16:fix=smooth", 4.125, "smooth"),
    "FlightLLM": ("i4:g=128:s=f16:sparse=4of16.block16", 1.09375, "4of16.block16"),
    "BCSR": ("i8:g=128:s=f16:sparse=bcsr16x16", 8.125, "bcsr16x16"),
    "CSR": ("f16:sparse=csr", 48.0, "csr"),
    "bitmap": ("i4:g=32:s=f16:sparse=bitmap", 5.5, "bitmap"),
}
QUANTIZES_ONLY = {
    "SpQR": ("spqr3", 3.9175),
    "2:4": ("i4:g=128:s=f16:sparse=2of4", 3.0625),
    "GEAR": ("u4:g=32:s=f16:z=min.f16:fix=lowrank.4.f16:fix=outliers.coo.20.f16", 6.6),
}


@pytest.mark.parametrize("family", DATA_ONLY)
def test_families_without_a_quantizer_say_so(family: str) -> None:
    spec, bits, reason = DATA_ONLY[family]
    form = formats.get(spec)
    assert form.bits_per_weight == pytest.approx(bits)
    form.check_shape((256, 512))
    with pytest.raises(formats.FormatError, match=f"not supported .*{reason}"):
        form.quantize(np.zeros((256, 512), np.float32))


@pytest.mark.parametrize("family", QUANTIZES_ONLY)
def test_families_without_a_storage_codec_say_so(family: str) -> None:
    spec, bits = QUANTIZES_ONLY[family]
    form = formats.get(spec)
    assert form.bits_per_weight == pytest.approx(bits)
    weight = form.quantize(np.ones((16, 256), np.float32))
    assert np.isfinite(weight.dequantize()).all()
    with pytest.raises(formats.FormatError, match="no storage codec"):
        form.row_bytes(256)
    with pytest.raises(formats.FormatError, match="no storage codec"):
        form.pack(weight)
    with pytest.raises(formats.FormatError, match="no storage codec"):
        form.unpack(np.zeros((1, 1), np.uint8), 256)


def test_entropy_coded_rows_have_no_length() -> None:
    with pytest.raises(formats.FormatError, match="no fixed length"):
        formats.get("df11").row_bytes(64)


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


def test_group_of_whole_rows_depends_on_the_shape() -> None:
    form = formats.get("w8")
    assert form.group_size(576) == 576
    with pytest.raises(formats.FormatError, match="whole row"):
        _ = form.group
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
