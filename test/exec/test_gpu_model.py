"""A small llama for a GPU: its PTX in the simulator gives the logits that transformers gives."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nybble.backends.gpu.model.plan import from_json
from nybble.backends.gpu.model.simulated import SimulatedModel
from nybble.frontend.checkpoint import open_checkpoint
from nybble.frontend.compile_model import CompileOptions, ModelCompiler
from nybble.frontend.gpu_model import compile_gpu_model
from nybble.frontend.requantize import requantized
from nybble.frontend.weight_choice import WeightChoice

pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

HIDDEN, INNER, HEAD, VOCABULARY, CONTEXT = 128, 192, 64, 96, 64
RULES = "w4g64,embed=q8_0,head=q8_0"
IDS = (3, 17, 90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A llama of one layer, with random weights, as Hugging Face stores it."""
    from tokenizers import Tokenizer, models

    path, random = tmp_path_factory.mktemp("llama"), np.random.default_rng(0)
    config = {
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": HEAD, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    shapes = {
        "self_attn.q": (2 * HEAD, HIDDEN), "self_attn.k": (HEAD, HIDDEN),
        "self_attn.v": (HEAD, HIDDEN), "self_attn.o": (HIDDEN, 2 * HEAD),
        "mlp.gate": (INNER, HIDDEN), "mlp.up": (INNER, HIDDEN), "mlp.down": (HIDDEN, INNER),
    }  # fmt: skip
    weights = {
        f"model.layers.0.{name}_proj.weight": random.standard_normal(shape) / shape[1] ** 0.5
        for name, shape in shapes.items()
    }
    for name in ("layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"):
        weights[f"model.{name}.weight"] = 1 + random.standard_normal(HIDDEN) / 10
    weights["model.embed_tokens.weight"] = random.standard_normal((VOCABULARY, HIDDEN)) / 2
    save_file({k: v.astype(np.float32) for k, v in weights.items()}, path / "model.safetensors")
    words = {f"t{index}": index for index in range(VOCABULARY)}
    Tokenizer(models.WordLevel(words, unk_token="t0")).save(str(path / "tokenizer.json"))
    return path


def test_the_model_answers_as_transformers_does(folder, reference, logits_of):
    from nybble.frontend.pytorch.import_model import import_model

    choice = WeightChoice(RULES)
    checkpoint = requantized(open_checkpoint(str(folder)), choice)
    options = CompileOptions(activations="f32", context=CONTEXT, weights=choice)
    compiled = compile_gpu_model(ModelCompiler(checkpoint, options, import_model), "sm_90a")
    ptx = {name: image.ptx for name, image in compiled.plan.images.items()}
    plan = from_json(json.loads(json.dumps(compiled.plan.to_json())), ptx)
    model = SimulatedModel(plan, dict(compiled.weights()))
    for token, wanted in zip(IDS, logits_of(reference(checkpoint), IDS), strict=True):
        found = model.feed(token)
        assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()
        assert model.next_token == int(wanted.argmax())
