"""Builds GGUF files byte by byte, well-formed unless a test overrides a field."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.constants import GGUFValueType as ValueType
from safetensors.numpy import save_file

_SCALARS = {
    ValueType.UINT8: "B",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.UINT64: "Q",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "B",
}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def payload(value: Any) -> tuple[int, bytes]:
    """The type number and bytes of a Python value, in the type that converters use for it."""
    if isinstance(value, bool):
        return ValueType.BOOL, struct.pack("<B", value)
    if isinstance(value, int):
        return ValueType.UINT32, struct.pack("<I", value)
    if isinstance(value, float):
        return ValueType.FLOAT32, struct.pack("<f", value)
    if isinstance(value, str):
        return ValueType.STRING, text(value)
    kind = payload(value[0])[0]
    items = b"".join(payload(item)[1] for item in value)
    return ValueType.ARRAY, struct.pack("<IQ", kind, len(value)) + items


@dataclass
class Tensor:
    """One entry of the table; `offset` None means the next free aligned place."""

    name: str | bytes
    dims: tuple[int, ...]
    kind: int = GGMLQuantizationType.F32
    data: bytes = b""
    offset: int | None = None
    rank: int | None = None


@dataclass
class Gguf:
    """A GGUF file to be: `bytes()` gives it. Any field may be made wrong."""

    magic: bytes = b"GGUF"
    version: int = 3
    pairs: list[tuple[str | bytes, int, bytes]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    pair_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32
    tail: bytes | None = None

    def set(self, key: str, value: Any) -> "Gguf":
        self.pairs = [pair for pair in self.pairs if pair[0] != key]
        self.pairs.append((key, *payload(value)))
        return self

    def drop(self, key: str) -> "Gguf":
        self.pairs = [pair for pair in self.pairs if pair[0] != key]
        return self

    def add(self, name: str, values: np.ndarray) -> "Gguf":
        """Add a float32 tensor of row-major `values`."""
        data = values.astype("<f4").tobytes()
        self.tensors.append(Tensor(name, tuple(reversed(values.shape)), data=data))
        return self

    def tensor(self, name: str) -> Tensor:
        return next(one for one in self.tensors if one.name == name)

    def bytes(self) -> bytes:
        head = self.magic + struct.pack("<I", self.version)
        for given, real in ((self.tensor_count, self.tensors), (self.pair_count, self.pairs)):
            head += struct.pack("<Q", len(real) if given is None else given)
        for key, kind, data in self.pairs:
            head += text(key) + struct.pack("<I", kind) + data
        body = b""
        for one in self.tensors:
            body += b"\0" * (-len(body) % self.alignment)
            head += text(one.name)
            head += struct.pack("<I", len(one.dims) if one.rank is None else one.rank)
            head += struct.pack(f"<{len(one.dims)}Q", *one.dims)
            offset = len(body) if one.offset is None else one.offset
            head += struct.pack("<IQ", one.kind, offset)
            body += one.data
        if self.tail is not None:
            body = self.tail
        return head + b"\0" * (-len(head) % self.alignment) + body


HIDDEN, INNER, HEADS, KV_HEADS, HEAD, VOCABULARY, LAYERS = 32, 64, 4, 2, 8, 40, 2

_LAYER = {
    "attn_q.weight": (HEADS * HEAD, HIDDEN),
    "attn_k.weight": (KV_HEADS * HEAD, HIDDEN),
    "attn_v.weight": (KV_HEADS * HEAD, HIDDEN),
    "attn_output.weight": (HIDDEN, HEADS * HEAD),
    "ffn_gate.weight": (INNER, HIDDEN),
    "ffn_up.weight": (INNER, HIDDEN),
    "ffn_down.weight": (HIDDEN, INNER),
    "attn_norm.weight": (HIDDEN,),
    "ffn_norm.weight": (HIDDEN,),
}
_EXTRA = {
    "qwen2": {
        "attn_q.bias": (HEADS * HEAD,),
        "attn_k.bias": (KV_HEADS * HEAD,),
        "attn_v.bias": (KV_HEADS * HEAD,),
    },
    "qwen3": {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)},
    "gemma3": {
        "attn_q_norm.weight": (HEAD,),
        "attn_k_norm.weight": (HEAD,),
        "post_attention_norm.weight": (HIDDEN,),
        "post_ffw_norm.weight": (HIDDEN,),
    },
}


def make_model(architecture: str = "llama") -> Gguf:
    """A complete two-layer model of float32 tensors with random values."""
    random = np.random.default_rng(0)
    file = Gguf().set("general.architecture", architecture)
    numbers = {
        "embedding_length": HIDDEN,
        "feed_forward_length": INNER,
        "block_count": LAYERS,
        "context_length": 128,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        "attention.key_length": HEAD,
    }
    for key, value in numbers.items():
        file.set(f"{architecture}.{key}", value)
    shapes = {"token_embd.weight": (VOCABULARY, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for index in range(LAYERS):
        layer = {**_LAYER, **_EXTRA.get(architecture, {})}
        shapes |= {f"blk.{index}.{name}": shape for name, shape in layer.items()}
    for name, shape in shapes.items():
        file.add(name, random.standard_normal(shape))
    return file


def make_config(**entries: Any) -> dict[str, Any]:
    """The config.json of the same model."""
    return {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "vocab_size": VOCABULARY,
        **entries,
    }


def make_weights() -> dict[str, np.ndarray]:
    """The tensors of the same model under transformers' names."""
    random = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    names = [
        *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
        *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
    ]
    for index in range(LAYERS):
        for name, shape in zip(names, _LAYER.values(), strict=True):
            shapes[f"model.layers.{index}.{name}"] = shape
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture
def gguf() -> type[Gguf]:
    return Gguf


@pytest.fixture
def model() -> Callable[[str], Gguf]:
    return make_model


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Gguf | bytes], Path]:
    """Write a file and return its path."""

    def write_file(content: Gguf | bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content if isinstance(content, bytes) else content.bytes())
        return path

    return write_file


@pytest.fixture
def config() -> Callable[..., dict[str, Any]]:
    return make_config


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return make_weights()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write config.json and model.safetensors, and return the folder."""

    def write_folder(weights: dict[str, np.ndarray], **entries: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(make_config(**entries)))
        save_file(weights, tmp_path / "model.safetensors")
        return tmp_path

    return write_folder


@pytest.fixture
def row_bytes() -> Callable[[int, int], int]:
    """Bytes of a row of so many elements of a ggml type."""

    def count(kind: int, elements: int) -> int:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        return elements // block * size

    return count
