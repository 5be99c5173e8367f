"""A small random model of every architecture as machine code, against transformers."""

import numpy as np
import pytest

from nybble.backends.cpu.session import Session
from nybble.frontend.checkpoint import open_checkpoint

torch = pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")
pytest.importorskip("transformers", reason="needs nybble[torch]")

from nybble.frontend.pytorch.architectures import (  # noqa: E402
    ARCHITECTURES,
    find_architecture,
    make_config,
)

VOCABULARY, CONTEXT, CHUNK = 96, 128, 16
COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MIXED = ["sliding_attention", "full_attention"]
CONFIGS = {
    "llama": COMMON | {"rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "mistral": COMMON | {"sliding_window": 8},
    "qwen2": {k: v for k, v in COMMON.items() if k != "head_dim"},
    "qwen3": COMMON | {"sliding_window": 8, "use_sliding_window": True, "layer_types": MIXED},
    "gemma3": COMMON | {"sliding_window": 8, "query_pre_attn_scalar": 24, "layer_types": MIXED},
}
LEVELS = (None, "x86-64-v3")
IDS = [(7 * index + 3) % VOCABULARY for index in range(41)]  # more than two chunks
PREFILLED = 19  # the rest is fed token by token


def test_every_architecture_has_a_case():
    assert sorted(CONFIGS) == sorted(ARCHITECTURES)


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def case(request, tmp_path_factory, logits_of):
    """(checkpoint, transformers' logits for IDS) of one architecture, through a folder."""
    from tokenizers import Tokenizer, models

    family = find_architecture(request.param)
    config = make_config(family, CONFIGS[request.param])
    config._attn_implementation = "eager"
    torch.manual_seed(len(request.param))
    model = getattr(family.modeling, f"{family.prefix}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    words = {f"w{number}": number for number in range(VOCABULARY)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return open_checkpoint(folder), logits_of(model, IDS)


@pytest.fixture(scope="module", params=LEVELS, ids=str)
def artifact(request, case, compile_checkpoint):
    """(artifact of an architecture at an instruction-set level, the wanted logits)."""
    checkpoint, wanted = case
    options = {"activations": "f32", "context": CONTEXT, "chunk": CHUNK, "isa": request.param}
    return compile_checkpoint(checkpoint, **options), wanted


@pytest.mark.parametrize("threads", [1, 2])
def test_logits_are_those_of_transformers(artifact, threads):
    folder, wanted = artifact
    session = Session.load(folder, threads)
    found = np.empty_like(wanted)

    def keep(start, logits):
        found[start : start + len(logits)] = logits

    session.score(IDS, keep)
    assert relative(found, wanted) <= 1e-4
    session.reset()
    session.prefill(IDS[:PREFILLED])
    assert relative(session.logits, wanted[PREFILLED - 1]) <= 1e-4
    for position in range(PREFILLED, len(IDS)):
        session.decode(IDS[position])
        assert relative(session.logits, wanted[position]) <= 1e-4, position
    session.close()


def relative(found, wanted):
    """The relative L2 error."""
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
