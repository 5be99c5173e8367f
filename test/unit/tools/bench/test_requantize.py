"""Requantized models in their cache, with a stand-in for llama.cpp's quantizer."""

import ctypes
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nybble.frontend.checkpoint import TensorEntry
from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.peers import requantize


class Params(ctypes.Structure):
    """The two fields that are set."""

    _fields_ = (("ftype", ctypes.c_int), ("allow_requantize", ctypes.c_bool))


@pytest.fixture
def quantizer(monkeypatch):
    """The calls of a quantizer that copies; `status` is what it returns."""
    fake = SimpleNamespace(
        LLAMA_FTYPE_MOSTLY_Q4_0=2,
        LLAMA_FTYPE_MOSTLY_Q4_K_M=15,
        llama_model_quantize_default_params=Params,
        status=0,
        calls=[],
    )

    def quantize(source, target, _params):
        fake.calls.append(Path(target.decode()).name)
        Path(target.decode()).write_bytes(Path(source.decode()).read_bytes())
        return fake.status

    fake.llama_model_quantize = quantize
    monkeypatch.setattr(requantize, "llama", lambda: fake)
    monkeypatch.setattr(requantize, "library_version", lambda: "1")
    return fake


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_same_is_the_file_itself(source, tmp_path):
    assert requantize.requantized(source, "same", tmp_path / "cache") == source
    assert not (tmp_path / "cache").exists()


def test_made_once_and_kept(quantizer, source, tmp_path):
    first = requantize.requantized(source, "q4_0", tmp_path / "cache")
    assert requantize.requantized(source, "q4_0", tmp_path / "cache") == first
    assert first.read_bytes() == b"GGUF"
    assert len(quantizer.calls) == 1
    assert quantizer.calls[0].startswith(".")


def test_another_source_is_another_file(quantizer, source, tmp_path):
    first = requantize.requantized(source, "q4_0", tmp_path / "cache")
    source.write_bytes(b"GGUF, changed")
    assert requantize.requantized(source, "q4_0", tmp_path / "cache") != first


def test_names_are_those_of_the_library(quantizer):
    assert requantize.file_type("Q4_K_M") == 15
    with pytest.raises(BenchError, match=r"no file type 'q9'.*same, q4_0, q4_k_m"):
        requantize.file_type("q9")


def test_a_refusal_leaves_nothing_behind(quantizer, source, tmp_path):
    quantizer.status = 1
    with pytest.raises(BenchError, match="cannot requantize"):
        requantize.requantized(source, "q4_0", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def tensors(*stored):
    """Parameters of (format, shape)."""
    return {
        str(place): TensorEntry(str(place), spec, shape, str(place), lambda: np.zeros(0, np.uint8))
        for place, (spec, shape) in enumerate(stored)
    }


@pytest.mark.parametrize(
    ("stored", "types"),
    [
        ("q4_1", ("same", "q4_0")),
        ("q2_k", ("same", "q4_0")),
        ("q6_k", ("same", "q8_0")),
        ("q4_0", ("same",)),
        ("f16", ("same",)),
    ],
)
def test_automatic_types_have_as_many_bits_at_least(stored, types):
    model = tensors((stored, (512, 256)), ("f32", (256,)), ("q8_0", (128, 256)))
    assert requantize.types_of(("auto",), model) == types
    assert requantize.types_of(("q4_k_m", "auto"), model) == ("q4_k_m", *types)
    assert requantize.types_of(("same", "q4_0"), model) == ("same", "q4_0")
