"""Models of a shape with random weights are files that the frontend reads."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.frontend.checkpoint import open_checkpoint
from nybble.frontend.text import tokenizer_of
from nybble.tools.driver import main
from nybble.tools.shape_model import SHAPES, find_shape, matrices, write_model

SMALL = replace(SHAPES["llama-3-8b"], layers=2, hidden=64, feed_forward=96, heads=4, kv_heads=2,
                head=16, vocabulary=300)  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
def test_the_file_is_a_checkpoint(tmp_path, tied):
    path = tmp_path / "small.gguf"
    write_model(replace(SMALL, tied=tied), "q4_0", path)
    checkpoint = open_checkpoint(path)
    sizes = checkpoint.config
    wanted = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 300,
        "tie_word_embeddings": tied,
    }
    assert {name: sizes[name] for name in wanted} == wanted
    matrix = checkpoint.tensors["model.layers.1.mlp.down_proj.weight"]
    assert (matrix.format, matrix.shape) == ("q4_0", (64, 96))
    tokenizer = tokenizer_of(checkpoint)
    assert tokenizer.decode(tokenizer.encode("any text: é")) == "any text: é"
    assert [one.name for one in tmp_path.iterdir()] == ["small.gguf"]


def test_a_seed_says_which_weights(tmp_path):
    files = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_model(SMALL, "q8_0", tmp_path / name, seed)
        files[name] = (tmp_path / name).read_bytes()
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


def test_weights_are_small_enough_for_a_deep_model(tmp_path):
    write_model(SMALL, "f32", tmp_path / "m")
    checkpoint = open_checkpoint(tmp_path / "m")
    raw = checkpoint.tensors["model.layers.0.mlp.up_proj.weight"].raw()
    values = np.frombuffer(np.ascontiguousarray(raw).tobytes(), np.float32)
    assert np.std(values) == pytest.approx(1 / 8, rel=0.05)


def test_published_sizes():
    counted = {
        name: sum(one.rows * one.cols for one in matrices(shape)) for name, shape in SHAPES.items()
    }
    billions = {name: round(count / 1e9, 2) for name, count in counted.items()}
    assert billions == {
        "smollm2-135m": 0.13,
        "llama-3.2-1b": 1.24,
        "llama-3-8b": 8.03,
        "llama-2-7b": 6.74,
        "llama-2-70b": 68.98,
        "mistral-7b": 7.25,
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("q4_k", "token_embd: 64 columns in format 'q4_k'"),
        ("nf4", "GGUF has no type 'nf4'"),
        ("q9", "unknown format 'q9'"),
    ],
)
def test_formats_that_a_file_cannot_have(tmp_path, spec, message):
    with pytest.raises(NybbleError, match=message):
        write_model(SMALL, spec, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_an_unknown_shape_names_the_known():
    with pytest.raises(UnknownNameError, match="unknown model shape 'x'") as told:
        find_shape("x")
    assert "llama-3-8b" in str(told.value.accepted)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["smollm2-135m", "--layers", "1", "--vocabulary", "300", "-o", "m.gguf"], 0, "wrote"),
        (["smollm2-135m", "-o", "no/such/m.gguf", "--layers", "1", "--vocabulary", "300"], 1,
         "No such file"),
        (["tiny", "-o", "m.gguf"], 1, "unknown model shape"),
        (["smollm2-135m", "--vocabulary", "3", "-o", "m.gguf"], 2, "258<=x"),
    ],
)  # fmt: skip
def test_the_command(tmp_path, monkeypatch, capsys, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["synthesize", *arguments])
    printed = capsys.readouterr()
    assert (ended.value.code or 0) == code
    assert said in printed.out + printed.err
