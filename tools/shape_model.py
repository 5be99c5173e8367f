"""GGUF models that have the shape of a published one and random weights, for measurements.

Rows of a matrix are drawn from a few quantized ones, in random order: quantizing billions of
numbers would take hours, and products cost the same. The tokenizer knows single bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from uuid import uuid4

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from numpy.typing import NDArray

from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.dialects.lowbit import formats

DISTINCT_ROWS = 256
END_TOKEN = "<|endoftext|>"
CONTEXT = 8192
EPSILON = 1e-5


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a llama-class model; `head` is the length of one attention head.

    source: whose config.json the sizes are from.
    """

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    theta: float
    tied: bool
    source: str


SHAPES = {
    "smollm2-135m": ModelShape(
        30, 576, 1536, 9, 3, 64, 49152, 1e5, True, "HuggingFaceTB/SmolLM2-135M"
    ),
    "llama-3.2-1b": ModelShape(
        16, 2048, 8192, 32, 8, 64, 128256, 5e5, True, "meta-llama/Llama-3.2-1B"
    ),
    "llama-3-8b": ModelShape(
        32, 4096, 14336, 32, 8, 128, 128256, 5e5, False, "meta-llama/Meta-Llama-3-8B"
    ),
    "llama-2-7b": ModelShape(
        32, 4096, 11008, 32, 32, 128, 32000, 1e4, False, "meta-llama/Llama-2-7b-hf"
    ),
    "llama-2-70b": ModelShape(
        80, 8192, 28672, 64, 8, 128, 32000, 1e4, False, "meta-llama/Llama-2-70b-hf"
    ),
    "mistral-7b": ModelShape(
        32, 4096, 14336, 32, 8, 128, 32768, 1e6, False, "mistralai/Mistral-7B-v0.3"
    ),
}
ALIASES = {name.replace("-", "", 1): name for name in SHAPES if name.startswith("llama-")}
"""Other spelling of a shape -> its name: llama2-7b, llama3-8b."""


class ShapeModelError(NybbleError):
    """A model that cannot be made as it was asked for."""


@dataclass(frozen=True)
class Matrix:
    """One weight matrix: its name in the file, rows and columns."""

    name: str
    rows: int
    cols: int


def find_shape(name: str) -> ModelShape:
    """The shape called `name`; raises UnknownNameError."""
    name = ALIASES.get(name, name)
    if name not in SHAPES:
        raise UnknownNameError(f"unknown model shape '{name}'", accepted=", ".join(SHAPES))
    return SHAPES[name]


def stored_type(spec: str) -> GGMLQuantizationType:
    """The type of GGUF files that a format's bytes are; raises ShapeModelError."""
    known = {kind.name.lower(): kind for kind in GGMLQuantizationType}
    name = formats.get(spec).spec
    if name not in known:
        able = [one for one in formats.names() if one in known]
        raise ShapeModelError(f"GGUF has no type '{spec}'", accepted=", ".join(able))
    return known[name]


def matrices(shape: ModelShape) -> Iterator[Matrix]:
    """Every matrix of a model, in the order of the file."""
    query, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    yield Matrix("token_embd", shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        yield Matrix(f"{prefix}attn_q", query, shape.hidden)
        yield Matrix(f"{prefix}attn_k", keys, shape.hidden)
        yield Matrix(f"{prefix}attn_v", keys, shape.hidden)
        yield Matrix(f"{prefix}attn_output", shape.hidden, query)
        yield Matrix(f"{prefix}ffn_gate", shape.feed_forward, shape.hidden)
        yield Matrix(f"{prefix}ffn_up", shape.feed_forward, shape.hidden)
        yield Matrix(f"{prefix}ffn_down", shape.hidden, shape.feed_forward)
    if not shape.tied:
        yield Matrix("output", shape.vocabulary, shape.hidden)


def norms(shape: ModelShape) -> Iterator[str]:
    """The names of the norms, each of `hidden` f32 ones."""
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm"
        yield f"blk.{layer}.ffn_norm"
    yield "output_norm"


def write_model(shape: ModelShape, spec: str, path: Path, seed: int = 0) -> None:
    """Write a model with all matrices in format `spec`, whole or not at all.

    Raises ShapeModelError where the file cannot have the format, FormatError where a matrix
    cannot, OSError as the operating system has it.
    """
    kind = stored_type(spec)
    every = list(matrices(shape))
    for matrix in every:
        _check(matrix, spec)
    draft = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        _write(shape, spec, kind, every, draft, seed)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _check(matrix: Matrix, spec: str) -> None:
    try:
        formats.get(spec).check_shape((matrix.rows, matrix.cols))
    except formats.FormatError as fault:
        raise ShapeModelError(f"{matrix.name}: {fault.message}", accepted=fault.accepted) from fault


def _write(
    shape: ModelShape,
    spec: str,
    kind: GGMLQuantizationType,
    every: list[Matrix],
    path: Path,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    pools = {cols: _rows(spec, cols, random) for cols in {one.cols for one in every}}
    ones = np.ones(shape.hidden, np.float32)
    writer = GGUFWriter(path, "llama")
    _add_metadata(writer, shape)
    for one in every:
        size = pools[one.cols].shape[1]
        writer.add_tensor_info(
            f"{one.name}.weight", (one.rows, size), np.dtype(np.uint8), one.rows * size, kind
        )
    for name in norms(shape):
        writer.add_tensor_info(f"{name}.weight", ones.shape, ones.dtype, ones.nbytes)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for one in every:
            pool = pools[one.cols]
            writer.write_tensor_data(pool[random.integers(0, len(pool), one.rows)])
        for _ in norms(shape):
            writer.write_tensor_data(ones)
    finally:
        writer.close()


def _rows(spec: str, cols: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Stored rows of normally distributed weights, u8 [DISTINCT_ROWS, row bytes]."""
    form = formats.get(spec)
    values = random.standard_normal((DISTINCT_ROWS, cols), np.float32) / np.float32(sqrt(cols))
    return form.pack(form.quantize(values))


def _add_metadata(writer: GGUFWriter, shape: ModelShape) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.theta)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(shape.vocabulary)
    tokens = [END_TOKEN, *_byte_tokens()]
    types = [TokenType.CONTROL, *[TokenType.NORMAL] * (len(tokens) - 1)]
    merged = tokens[1] + tokens[2]  # readers want at least one merge
    unused = [f"[unused{i}]" for i in range(shape.vocabulary - len(tokens) - 1)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, merged, *unused])
    writer.add_token_types([*types, TokenType.NORMAL, *[TokenType.UNUSED] * len(unused)])
    writer.add_token_merges([f"{tokens[1]} {tokens[2]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def _byte_tokens() -> list[str]:
    """The 256 bytes as byte-level BPE spells them: printable ones as they are, others from U+0100.

    Source: GPT-2, `bytes_to_unicode` in encoder.py.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
