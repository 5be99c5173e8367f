"""Malformed safetensors files: one kind of error, whatever the library makes of them."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from nybble.frontend.checkpoint import CheckpointError
from nybble.frontend.checkpoint.safetensors_file import read_safetensors


def with_header(header, body=b"\0" * 16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def one(dtype="F32", shape=(4,), span=(0, 16)):
    return with_header({"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}})


CASES = {
    "short": (b"\1\2\3", "starts with 8"),
    "huge header": (b"\xff" * 8 + b"{}", "header length is 18446744073709551615"),
    "header past the end": ((100).to_bytes(8, "little") + b"{}", "at most 2 is accepted"),
    "header not text": (with_header(b"\xff\xff"), "byte 8: header is not UTF-8"),
    "header not JSON": (with_header(b"{]"), "is not JSON"),
    "header a list": (with_header([]), "expected an object"),
    "header deep": (with_header(b'{"a":' * 50000), "too deeply"),
    "name twice": (with_header(b'{"w": 1, "w": 2}'), "appears twice"),
    "entry of a number": (with_header({"w": 3}), "is not a safetensors file"),
    "unknown dtype": (one("Q4"), "is not a safetensors file"),
    "unsupported dtype": (one("C64", (2,)), "dtype 'C64'; accepted: F32, F16, BF16, F8_E4M3"),
    "span past the end": (one(span=(0, 32), shape=(8,)), "is not a safetensors file"),
    "span backwards": (one(span=(16, 0)), "is not a safetensors file"),
    "wrong size": (one(shape=(5,)), "is not a safetensors file"),
    "product that wraps": (one(shape=(1 << 62, 1 << 62)), "is not a safetensors file"),
    "scalar": (one(shape=(), span=(0, 4)), "is not a safetensors file"),
    "gap": (one(shape=(1,), span=(8, 12)), "is not a safetensors file"),
}


@pytest.mark.parametrize("case", CASES)
def test_rejected(case, tmp_path, bounded):
    data, message = CASES[case]
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    bounded()
    with pytest.raises(CheckpointError) as caught:
        read_safetensors(path)
    assert message in str(caught.value)


def test_scalars(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"w": np.array(1, np.float32)}))
    tensor = read_safetensors(path).tensors["w"]
    assert (tensor.dtype, tensor.shape, tensor.data.shape) == ("f32", (), (1, 4))


def test_empty_tensors(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"w": np.zeros((0, 3), np.float32)}))
    with pytest.raises(CheckpointError, match="sizes of 1 or more needed"):
        read_safetensors(path)


def test_metadata(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"w": np.ones(3, np.float32)}, metadata={"format": "np"}))
    assert read_safetensors(path).metadata == {"format": "np"}


def message_of(path):
    """What reading the file raised, or nothing."""
    try:
        read_safetensors(path)
    except CheckpointError as error:
        return str(error)
    return ""


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    edits=st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=4)), max_size=4)
)
def test_mutations_raise_nothing_else(edits, tmp_path, bounded):
    data = bytearray(save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}))
    for place, patch in edits:
        data[place : place + len(patch)] = patch
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    bounded()
    assert len(message_of(path).splitlines()) <= 1
