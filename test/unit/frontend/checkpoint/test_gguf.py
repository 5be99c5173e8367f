"""Well-formed GGUF files read as the gguf package reads them."""

import struct

import gguf as reference
import numpy as np
import pytest

from nybble.frontend.checkpoint.gguf import read_gguf


@pytest.fixture
def written(tmp_path):
    """A file of every metadata kind and a few tensor types, by the reference writer."""
    path = tmp_path / "reference.gguf"
    writer = reference.GGUFWriter(path, "llama")
    writer.add_uint8("k.u8", 200)
    writer.add_int16("k.i16", -5)
    writer.add_uint64("k.u64", 1 << 60)
    writer.add_float64("k.f64", 0.1)
    writer.add_bool("k.bool", True)
    writer.add_string("k.text", "na\u00efve")
    writer.add_array("k.strings", ["a", "", "\u65e5\u672c"])
    writer.add_array("k.ints", [1, -2, 3])
    writer.add_array("k.bools", [True, False])
    random = np.random.default_rng(0)
    writer.add_tensor("f32", random.standard_normal((3, 5), np.float32))
    writer.add_tensor("f16", random.standard_normal(7).astype(np.float16))
    kind = reference.GGMLQuantizationType.Q4_1
    packed = reference.quants.quantize(random.standard_normal((4, 64), np.float32), kind)
    writer.add_tensor("q4_1", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_values(written):
    metadata = read_gguf(written).metadata
    assert metadata.integer("k.u8") == 200
    assert metadata.integer("k.i16") == -5
    assert metadata.integer("k.u64") == 1 << 60
    assert metadata.number("k.f64") == 0.1
    assert metadata.flag("k.bool", False)
    assert metadata.text("k.text") == "na\u00efve"
    assert metadata.strings("k.strings") == ("a", "", "\u65e5\u672c")
    assert metadata.integers("k.ints").tolist() == [1, -2, 3]
    assert metadata.pairs["k.bools"].tolist() == [True, False]


def test_tensors_equal_the_reference_reader(written):
    file = read_gguf(written)
    expected = reference.GGUFReader(written).tensors
    assert [one.name for one in expected] == list(file.tensors)
    for one in expected:
        tensor = file.tensors[one.name]
        assert tensor.format == one.tensor_type.name.lower()
        assert list(tensor.shape) == one.shape.tolist()[::-1]
        assert file.rows(one.name).tobytes() == one.data.tobytes()
    assert file.rows("q4_1").shape == (4, 40)
    assert not file.rows("q4_1").flags.writeable


def test_version_2_and_custom_alignment(gguf, write):
    for alignment in (1, 64, 1 << 16):
        file = gguf(version=2, alignment=alignment).set("general.alignment", alignment)
        file.add("w", np.arange(6.0).reshape(2, 3)).add("v", np.ones(4))
        read = read_gguf(write(file))
        assert read.rows("w").view("<f4").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_every_tensor_type_has_a_size(gguf, write, row_bytes):
    for kind in reference.GGMLQuantizationType:
        file = gguf()
        file.add("w", np.zeros((1, 256)))
        size = row_bytes(kind, 256)
        file.tensor("w").kind, file.tensor("w").data = kind, bytes(size)
        assert read_gguf(write(file)).rows("w").shape == (1, size)


def test_no_tensors_and_no_pairs(gguf, write):
    file = read_gguf(write(gguf()))
    assert dict(file.tensors) == {}
    assert struct.unpack_from("<I", file.data[4:8].tobytes()) == (3,)
