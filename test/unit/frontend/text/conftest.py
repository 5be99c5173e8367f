"""Metadata of small tokenizers, and the packaged model's tokenizer."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nybble.frontend.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from nybble.frontend.checkpoint.metadata import Metadata
from nybble.frontend.text import Tokenizer, tokenizer_of

PIECES = ["h", "e", "l", "o", "w", "r", "d", "\u0120", "1", "2", "a", "b"]
MERGES = ["h e", "l l", "he ll", "hell o", "\u0120 w", "1 2"]


def make_metadata(**entries: Any) -> Metadata:
    """A byte-level vocabulary of a few letters; an entry of None drops a key."""
    tokens = [*PIECES, *(merge.replace(" ", "") for merge in MERGES), "<|end|>", "<think>"]
    pairs: dict[str, Any] = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": np.array([1] * (len(tokens) - 2) + [3, 4], np.int32),
        "tokenizer.ggml.merges": tuple(MERGES),
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
    }
    given = {key.replace("__", "."): value for key, value in entries.items()}
    pairs = {**pairs, **{f"tokenizer.ggml.{key}": value for key, value in given.items()}}
    return Metadata("m.gguf", {key: value for key, value in pairs.items() if value is not None})


@pytest.fixture
def metadata() -> Callable[..., Metadata]:
    return make_metadata


@pytest.fixture
def tokenizer() -> Callable[..., Tokenizer]:
    """A tokenizer from `metadata`, made with the same entries."""

    def make(described: Metadata | None = None, **entries: Any) -> Tokenizer:
        described = described or make_metadata(**entries)
        config = {"vocab_size": len(described.pairs.get("tokenizer.ggml.tokens", ()))}
        return tokenizer_of(Checkpoint("m.gguf", "llama", config, {}, described))

    return make


@pytest.fixture(scope="session")
def smollm2() -> Tokenizer:
    return tokenizer_of(smollm2_checkpoint())


@pytest.fixture(scope="session")
def smollm2_path():
    return smollm2_checkpoint().path


def smollm2_checkpoint() -> Checkpoint:
    try:
        return open_checkpoint("smollm2")
    except CheckpointError as error:
        pytest.skip(str(error))


_LLAMA_CPP = """
import json, sys, llama_cpp
path, texts, add_bos = json.load(sys.stdin)
model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
ids = {text: model.tokenize(text.encode(), add_bos=add_bos, special=True) for text in texts}
json.dump(ids, sys.stdout)
"""


@pytest.fixture(scope="session")
def llama_cpp_ids() -> Callable[..., dict[str, list[int]]]:
    """The ids that llama.cpp gives for texts, from a process of its own: it writes to stderr."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("oracle: pip install nybble[bench]")

    def ask(path: Path, texts: list[str], add_bos: bool) -> dict[str, list[int]]:
        request = json.dumps([str(path), texts, add_bos])
        command = [sys.executable, "-c", _LLAMA_CPP]
        done = subprocess.run(command, input=request, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return ask
