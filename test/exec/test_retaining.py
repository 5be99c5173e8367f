"""A small random model whose layers keep a number of tokens, as machine code.

One layer goes by learned scores, one by the attention of the last queries, and one keeps what that
one chose.
"""

from collections import Counter

import numpy as np
import pytest

from nybble.backends.cpu.artifact import open_artifact
from nybble.backends.cpu.session import Session
from nybble.frontend.checkpoint import open_checkpoint
from nybble.frontend.scorers import with_scorers

torch = pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")
transformers = pytest.importorskip("transformers", reason="needs nybble[torch]")

POLICY = "layers(0:locret(8,24);else:windowkv(4,2,24,3))"
SLOTS, LAYERS, VOCABULARY, HIDDEN = 32, 3, 96, 40
IDS = [(7 * index * index + 3) % VOCABULARY for index in range(80)]


@pytest.fixture(scope="module")
def case(tmp_path_factory, compile_checkpoint, logits_of):
    """(artifact, transformers' logits of the whole text)."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models

    config = transformers.LlamaConfig(
        hidden_size=64, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, intermediate_size=96, vocab_size=VOCABULARY, max_position_embeddings=128,
        attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder, rng = tmp_path_factory.mktemp("llama"), np.random.default_rng(0)
    model.save_pretrained(folder)
    words = {f"w{number}": number for number in range(VOCABULARY)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    scorers = {
        f"model.layers.{layer}.self_attn.fc{index}.weight": rng.standard_normal(shape, np.float32)
        for layer in range(LAYERS)
        for index, shape in ((1, (HIDDEN, 128)), (2, (2, HIDDEN)))
    }
    file = tmp_path_factory.mktemp("heads") / "heads.safetensors"
    save_file(scorers, file)
    checkpoint = with_scorers(open_checkpoint(folder), file)
    options = {"activations": "f32", "context": 128, "chunk": 16, "attention": POLICY}
    return compile_checkpoint(checkpoint, **options), logits_of(model, IDS)


def test_tokens_in_chunks_and_one_by_one(case):
    """The same in any way, and that of transformers until the slots are full."""
    folder, wanted = case
    session = Session.load(folder, 2)
    chunked, single = np.empty_like(wanted), np.empty_like(wanted)

    def keep(start, logits):
        chunked[start : start + len(logits)] = logits

    session.score(IDS, keep)
    session.reset()
    for position, token in enumerate(IDS):
        session.decode(token)
        single[position] = session.logits
    session.close()
    bound = 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(chunked, single, atol=bound)
    np.testing.assert_allclose(single[:SLOTS], wanted[:SLOTS], atol=bound)
    assert np.abs(single - wanted).max(axis=1)[SLOTS + 8 :].min() > bound


def test_what_layers_keep(case):
    """A step is one program; layers of a group have one list of moves."""
    plan = open_artifact(case[0]).plan
    assert [one.name for one in plan.programs].count("decode") == 1
    states = Counter(name.rpartition("_")[0] for name in map(str, (b.name for b in plan.buffers)))
    assert (states["mass"], states["moves"]) == (2, 2)
    sizes = {one.name: one.bytes for one in plan.buffers}
    assert sizes["keys.0"] == sizes["keys.2"] == 2 * 16 * SLOTS * 4
