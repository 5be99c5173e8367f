"""torchao's tensors made by hand: Int4Tensor, which torchao packs on GPUs only, and bad ones."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nybble.dialects.lowbit import formats
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
