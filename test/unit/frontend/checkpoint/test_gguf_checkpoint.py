"""A GGUF file gives transformers' names, row order, values and configuration."""

import numpy as np
import pytest

from nybble.frontend.checkpoint import CheckpointError, open_checkpoint

HIDDEN, HEADS, KV_HEADS, HEAD, LAYERS = 32, 4, 2, 8, 2
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma3")


def floats(entry):
    return entry.raw().view("<f4").reshape(entry.shape)


def stored(file, name):
    tensor = file.tensor(name)
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.dims[::-1])


def interleave(rows, heads):
    """What llama.cpp's converter does to q and k rows (convert_hf_to_gguf.py, permute)."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture, model, write):
    file = model(architecture)
    checkpoint = open_checkpoint(write(file))
    assert checkpoint.architecture == architecture
    assert checkpoint.metadata is not None
    assert {entry.stored_as for entry in checkpoint.tensors.values()} == {
        tensor.name for tensor in file.tensors
    }
    embedding, head = (
        checkpoint.tensors[name] for name in ("model.embed_tokens.weight", "lm_head.weight")
    )
    assert head.stored_as == embedding.stored_as == "token_embd.weight"
    assert np.array_equal(floats(head), stored(file, "token_embd.weight"))
    assert checkpoint.config["tie_word_embeddings"] is True
    for entry in checkpoint.tensors.values():
        assert entry.raw().dtype == np.uint8
        assert not entry.raw().flags.writeable


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_row_order_of_queries_and_keys(architecture, model, write):
    file = model(architecture)
    checkpoint = open_checkpoint(write(file))
    for name, heads in (("q", HEADS), ("k", KV_HEADS)):
        found = floats(checkpoint.tensors[f"model.layers.1.self_attn.{name}_proj.weight"])
        rows = stored(file, f"blk.1.attn_{name}.weight")
        permuted = architecture in ("llama", "mistral")
        assert np.array_equal(interleave(found, heads) if permuted else found, rows)
    values = floats(checkpoint.tensors["model.layers.1.self_attn.v_proj.weight"])
    assert np.array_equal(values, stored(file, "blk.1.attn_v.weight"))


def test_packed_rows_are_moved_whole(model, write, row_bytes):
    file = model("llama")
    tensor = file.tensor("blk.0.attn_q.weight")
    size = row_bytes(3, HIDDEN)
    rows = np.arange(HEADS * HEAD, dtype=np.uint8).repeat(size).reshape(-1, size)
    tensor.kind, tensor.data = 3, rows.tobytes()
    entry = open_checkpoint(write(file)).tensors["model.layers.0.self_attn.q_proj.weight"]
    assert (entry.format, entry.shape) == ("q4_1", (HEADS * HEAD, HIDDEN))
    assert np.array_equal(interleave(entry.raw(), HEADS), rows)


def test_plain_tensors_are_views_of_the_file(model, write):
    checkpoint = open_checkpoint(write(model("llama")))
    raw = checkpoint.tensors["model.layers.0.mlp.up_proj.weight"].raw()
    assert isinstance(raw.base, np.ndarray)
    assert raw.flags.c_contiguous


def test_gemma_norms_lose_the_offset(model, write):
    file = model("gemma3")
    tensors = open_checkpoint(write(file)).tensors
    for name, place in (
        ("model.norm", "output_norm"),
        ("model.layers.0.pre_feedforward_layernorm", "blk.0.ffn_norm"),
        ("model.layers.0.post_feedforward_layernorm", "blk.0.post_ffw_norm"),
        ("model.layers.1.post_attention_layernorm", "blk.1.post_attention_norm"),
        ("model.layers.1.self_attn.q_norm", "blk.1.attn_q_norm"),
    ):
        expected = stored(file, f"{place}.weight") - np.float32(1)
        assert np.array_equal(floats(tensors[f"{name}.weight"]), expected)
    plain = floats(tensors["model.layers.0.mlp.gate_proj.weight"])
    assert np.array_equal(plain, stored(file, "blk.0.ffn_gate.weight"))


def test_biases(model, write):
    file = model("llama")
    for index in range(LAYERS):
        for name, size in (("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
            file.add(f"blk.{index}.attn_{name}.bias", np.arange(float(size)))
        file.add(f"blk.{index}.attn_output.bias", np.zeros(HIDDEN))
    checkpoint = open_checkpoint(write(file))
    assert checkpoint.config["attention_bias"] is True
    bias = checkpoint.tensors["model.layers.0.self_attn.q_proj.bias"]
    assert bias.raw().shape == (1, 4 * HEADS * HEAD)
    assert floats(bias)[:HEAD].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert open_checkpoint(write(model("qwen2"))).tensors[
        "model.layers.0.self_attn.q_proj.bias"
    ].shape == (HEADS * HEAD,)


def test_separate_head(model, write):
    file = model("llama").add("output.weight", np.ones((40, HIDDEN)))
    checkpoint = open_checkpoint(write(file))
    assert checkpoint.config["tie_word_embeddings"] is False
    assert checkpoint.tensors["lm_head.weight"].stored_as == "output.weight"


def test_configuration(model, write):
    file = model("llama").set("tokenizer.ggml.eos_token_id", 2)
    config = open_checkpoint(write(file)).config
    assert config == {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "rms_norm_eps": pytest.approx(1e-5),
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }


def test_gemma_configuration(model, write):
    file = model("gemma3").set("gemma3.attention.sliding_window", 16)
    file.set("gemma3.rope.freq_base", 1e6)
    file.set("gemma3.rope.scaling.type", "linear").set("gemma3.rope.scaling.factor", 8.0)
    config = open_checkpoint(write(file)).config
    assert config["model_type"] == "gemma3_text"
    assert config["layer_types"] == ["sliding_attention"] * 2
    assert config["sliding_window"] == 16
    assert config["query_pre_attn_scalar"] == HEAD
    assert config["rope_parameters"] == {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    file.set("gemma3.attention.sliding_window_pattern", [True, False])
    config = open_checkpoint(write(file)).config
    assert config["layer_types"] == ["sliding_attention", "full_attention"]
    file.set("gemma3.attention.sliding_window_pattern", 1)
    assert open_checkpoint(write(file)).config["layer_types"] == ["full_attention"] * 2


def test_yarn(model, write):
    file = model("qwen2").set("qwen2.rope.scaling.type", "yarn")
    file.set("qwen2.rope.scaling.factor", 4.0)
    file.set("qwen2.rope.scaling.original_context_length", 32)
    file.set("qwen2.rope.scaling.attn_factor", 2.0)
    assert open_checkpoint(write(file)).config["rope_parameters"] == {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "attention_factor": pytest.approx(2 * (0.1 * np.log(4) + 1)),
        "original_max_position_embeddings": 32,
    }


def changed(**entries):
    def change(file):
        for key, value in entries.items():
            file.set(key.replace("__", "."), value)

    return change


def without(name):
    def change(file):
        file.tensors.remove(file.tensor(name))

    return change


def of_kind(name, kind, size):
    def change(file):
        file.tensor(name).kind, file.tensor(name).data = kind, bytes(size)

    return change


BAD = {
    "architecture": (
        changed(general__architecture="falcon"),
        "'falcon' is not supported; these are: llama, mistral, qwen2, qwen3, gemma3",
    ),
    "no architecture": (lambda f: f.drop("general.architecture"), "is missing: a string"),
    "no embedding": (without("token_embd.weight"), "tensor token_embd.weight is missing"),
    "missing tensor": (without("blk.1.attn_v.weight"), "tensors missing: 'blk.1.attn_v.weight'"),
    "extra tensor": (
        lambda f: f.add("blk.0.odd.weight", np.ones(4)),
        "its architecture does not have: 'blk.0.odd.weight'",
    ),
    "wrong shape": (changed(llama__feed_forward_length=65), "needs [65, 32]"),
    "wrong vocabulary": (changed(llama__vocab_size=41), "needs [41, 32]"),
    "packed norm": (of_kind("output_norm.weight", 8, 34), "one of f32, f16, bf16 is needed"),
    "no layers": (changed(llama__block_count=0), "an integer from 1 to 1024"),
    "many layers": (changed(llama__block_count=1 << 31), "an integer from 1 to 1024"),
    "heads per layer": (
        changed(llama__attention__head_count_kv=[2, 1]),
        "one value for all layers",
    ),
    "zero heads": (
        changed(llama__attention__head_count=0),
        "'num_attention_heads' is 0; needed: an integer from 1",
    ),
    "uneven heads": (changed(llama__attention__head_count_kv=3), "a divisor of the 4"),
    "odd head": (changed(llama__attention__key_length=7), "an even number"),
    "text for a number": (changed(llama__embedding_length="32"), "an integer is needed"),
    "integer for a number": (
        changed(llama__attention__layer_norm_rms_epsilon="x"),
        "a finite number",
    ),
    "infinite number": (changed(llama__rope__freq_base=float("inf")), "a finite number"),
    "negative number": (changed(llama__rope__freq_base=-1.0), "a number from 1 to 1e+12"),
    "experts": (changed(llama__expert_count=8), "'llama.expert_count' is not supported"),
    "partial rotation": (changed(llama__rope__dimension_count=4), "the head length 8 is needed"),
    "value length": (changed(llama__attention__value_length=4), "the head length 8 is needed"),
    "window": (
        changed(llama__attention__sliding_window=8),
        "no window (not supported in llama files)",
    ),
    "rope scaling": (changed(llama__rope__scaling__type="su"), "one of none, linear, yarn"),
    "rope factors": (
        lambda f: f.add("rope_freqs.weight", np.arange(1.0, 5.0)),
        "Llama 3.1's rule",
    ),
    "end of text": (changed(tokenizer__ggml__eos_token_id=40), "token ids from 0 to 39"),
}


@pytest.mark.parametrize("case", BAD)
def test_rejected(case, model, write, bounded):
    change, message = BAD[case]
    file = model("llama")
    change(file)
    path = write(file)
    bounded()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_rejected_of_other_architectures(model, write):
    file = model("qwen3").set("qwen3.attention.sliding_window", 8)
    with pytest.raises(CheckpointError, match="not supported in qwen3"):
        open_checkpoint(write(file))
    file = model("gemma3")
    of_kind("output_norm.weight", 1, 64)(file)
    with pytest.raises(CheckpointError, match="f16; f32 is needed"):
        open_checkpoint(write(file))
