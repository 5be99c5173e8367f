"""torchao's tensors made by hand: Int4Tensor, which torchao packs on GPUs only, and bad ones."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.numeric import decode_floats
from nybble.frontend.checkpoint import CheckpointError, open_checkpoint

UP = "model.layers.0.mlp.up_proj"
INT4 = {"block_size": [1, 16], "shape": [64, 32]}


@pytest.fixture
def written(weights, config, tmp_path):
    """A function (tensors of one layer, its record) -> a folder with that layer quantized."""

    def write(tensors, record):
        stored = {name: v for name, v in weights.items() if name != f"{UP}.weight"}
        stored |= {f"{UP}._weight_{part}": np.ascontiguousarray(v) for part, v in tensors.items()}
        metadata = {} if record is None else {f"{UP}.weight": record}
        save_file(stored, tmp_path / "model.safetensors", metadata=metadata)
        text = json.dumps(config(quantization_config={"quant_method": "torchao"}))
        (tmp_path / "config.json").write_text(text)
        return tmp_path

    return write


def as_e4m3(path, name):
    """Says in the header that a tensor of bytes has e4m3, which numpy has no type for."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header[name]["dtype"] = "F8_E4M3"
    told = json.dumps(header).encode()
    path.write_bytes(len(told).to_bytes(8, "little") + told + data[8 + size :])


def int4():
    """(tensors, codes, scale, minima) of a weight [64, 32] in groups of 16."""
    random = np.random.default_rng(3)
    codes = random.integers(-8, 8, (64, 32)).astype(np.int8)
    packed = (codes[:, ::2] & 0xF) | (codes[:, 1::2] << 4)
    scale, minima = random.standard_normal((2, 2, 64)).astype(np.float16)
    return {"qdata": packed, "scale": scale, "zero_point": minima}, codes, scale, minima


def record(kind="Int4Tensor", **data):
    return json.dumps({"_type": kind, "_data": INT4 | data})


def test_int4(written):
    tensors, codes, scale, minima = int4()
    entry = open_checkpoint(written(tensors, record())).tensors[f"{UP}.weight"]
    assert entry.format == "i4:g=16:s=f16:z=min.f16"
    found = formats.get(entry.format).unpack(entry.raw(), 32).dequantize()
    wide = [np.repeat(one.T.astype(np.float32), 16, axis=1) for one in (scale, minima)]
    assert np.array_equal(found, codes * wide[0] + wide[1])


def test_nvfp4_keeps_the_scale_of_the_matrix(written):
    random = np.random.default_rng(4)
    packed = random.integers(0, 256, (64, 16)).astype(np.uint8)
    scale = random.integers(0, 127, (64, 2)).astype(np.uint8)
    total = np.array(0.0037, np.float32)
    told = record("NVFP4Tensor", block_size=16, is_swizzled_scales=False)
    tensors = {"qdata": packed, "per_tensor_scale": total}
    folder = written(tensors | {"scale": scale}, told)
    as_e4m3(folder / "model.safetensors", f"{UP}._weight_scale")
    entry = open_checkpoint(folder).tensors[f"{UP}.weight"]
    assert entry.format == "nvfp4_scaled"
    found = formats.get(entry.format).unpack(entry.raw(), 32)
    halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(64, 32)
    magnitudes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    codes = np.where(halves & 8, -1, 1) * magnitudes[halves & 7]
    scales = np.repeat(decode_floats("e4m3", scale) * total, 16, axis=1)
    assert np.array_equal(found.dequantize(), (codes * scales).astype(np.float32))


BYTES = {"qdata": np.zeros((64, 16), np.uint8), "scale": np.ones((64, 2), np.float32)}
REFUSED = {
    "no record": ({}, None, "has no metadata for tensor"),
    "not JSON": ({}, "{", "is not JSON"),
    "class": ({}, record("Int4TilePackedTo4dTensor"), "needed: one of Float8Tensor, Int4Tensor"),
    "smoothing": ({"act_pre_scale": np.ones(32, np.float32)}, record(), "has no meaning"),
    "block": ({}, record(block_size=[1]), "needed: two sizes of 1"),
    "group": ({}, record(block_size=[1, 12]), "no multiple of groups of 12"),
    "rows": ({}, record(block_size=[2, 16]), "needed: one row"),
    "type": ({}, record("IntxUnpackedToInt8Tensor", target_dtype={"_data": "int9"}), "'int9'"),
    "swizzled": (BYTES, record("NVFP4Tensor", is_swizzled_scales=True), "needed: false"),
    "shape": ({"qdata": np.zeros((64, 17), np.int8)}, record(), "needed: [64, 16]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, written, bounded):
    tensors, text, message = REFUSED[case]
    folder = written(tensors if "scale" in tensors else int4()[0] | tensors, text)
    bounded()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert message in str(caught.value)
