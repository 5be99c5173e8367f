"""A small llama for a GPU: its PTX in the simulator gives the logits that transformers gives."""

import json
from functools import lru_cache

import numpy as np
import pytest
from safetensors.numpy import save_file

from nybble.backends.cpu.session import Session
from nybble.backends.gpu.kernels.attention.coded import CodedCache
from nybble.backends.gpu.model.plan import STATE, from_json
from nybble.backends.gpu.model.simulated import SimulatedModel
from nybble.backends.gpu.packing.cache import pack_cache
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.sparse_attn.kv import parse
from nybble.frontend.checkpoint import open_checkpoint
from nybble.frontend.compile_model import CompileOptions, ModelCompiler
from nybble.frontend.gpu_model import compile_gpu_model
from nybble.frontend.graph import Role
from nybble.frontend.requantize import requantized
from nybble.frontend.weight_choice import WeightChoice

pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

HIDDEN, INNER, HEAD, VOCABULARY, CONTEXT = 128, 256, 64, 96, 64
RULES = "w4g64,embed=q8_0,head=q8_0"
IDS = (3, 17, 90, 1, 44, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function (features of a head, context) -> a llama of one layer, with random weights, as
    Hugging Face stores it."""
    return lru_cache(
        lambda head, context: write_llama(tmp_path_factory.mktemp("llama"), head, context)
    )


def write_llama(path, head, context):
    """The folder, with its files."""
    from tokenizers import Tokenizer, models

    random = np.random.default_rng(0)
    config = {
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": head, "vocab_size": VOCABULARY, "max_position_embeddings": context,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    shapes = {
        "self_attn.q": (2 * head, HIDDEN), "self_attn.k": (head, HIDDEN),
        "self_attn.v": (head, HIDDEN), "self_attn.o": (HIDDEN, 2 * head),
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


@pytest.fixture(scope="module")
def compiled(folder):
    """A function (activations, rules) -> the checkpoint with the weights chosen, and its model."""
    from nybble.frontend.pytorch.import_model import import_model

    def compile_one(activations, rules, arch="sm_90a", dataflow=""):
        choice = WeightChoice(rules)
        checkpoint = requantized(open_checkpoint(str(folder(HEAD, CONTEXT))), choice)
        options = CompileOptions(
            activations="f32", context=CONTEXT, weights=choice, dataflow=dataflow
        )
        compiler = ModelCompiler(checkpoint, options, import_model)
        return checkpoint, compile_gpu_model(compiler, arch, activations, tokens=4)

    return compile_one


CODES = RULES.replace("q8_0", "w4g64")
LOOKED_UP = ("f16", CODES, "sm_90a+lmma", "stream_lookup")
OUTLYING = RULES.replace("w4g64", "spqr3")
LOSSLESS = "df11,embed=q8_0,head=df11"
LOST = {"f16": 2e-3, "bf16": 16e-3}
"""Of the largest logit: what is rounded to bf16 loses three more bits."""


@pytest.mark.parametrize(
    "choice",
    [("f16", RULES), ("bf16", CODES), LOOKED_UP, ("f16", OUTLYING), ("bf16", LOSSLESS)],
    ids=["stream", "bf16", "stream_lookup", "outliers", "lossless"],
)
def test_the_model_answers_as_transformers_does(compiled, reference, logits_of, choice):
    checkpoint, model = compiled(*choice)
    lookups = ["lmma" in image.ptx for image in model.plan.images.values()]
    assert any(lookups) == (choice is LOOKED_UP)
    ptx = {name: image.ptx for name, image in model.plan.images.items()}
    plan = from_json(json.loads(json.dumps(model.plan.to_json())), ptx)
    simulated, wanted = SimulatedModel(plan, dict(model.weights())), logits_of(
        reference(checkpoint), IDS
    )  # fmt: skip
    for tokens, row in ((IDS[:1], 0), (IDS[1:4], 3), (IDS[4:], -1)):
        found = simulated.feed(*tokens)
        assert np.abs(found - wanted[row]).max() < LOST[choice[0]] * np.abs(wanted[row]).max()
        assert simulated.next_token == int(wanted[row].argmax())


def test_products_of_integers_are_those_of_the_references(compiled):
    """With one key attention is exact; later, its rounding to f16 makes other codes of some."""
    _, model = compiled("i8", RULES)
    simulated, wanted = SimulatedModel(model.plan, dict(model.weights())), references(model, IDS)
    for tokens, row, most in ((IDS[:1], 0, 1e-4), (IDS[1:5], 4, 3e-2)):
        found = simulated.feed(*tokens)
        assert np.abs(found - wanted[row]).max() < most * np.abs(wanted[row]).max()


@pytest.mark.parametrize(("kv", "head"), [("kivi4(16,16)", 64), ("kivi2(16,16)", 128)])
def test_a_cache_with_codes_is_that_of_its_tokens(folder, compile_checkpoint, kv, head):
    """The ring of prompts of 64 still has all tokens: codes are those of the reference on them, and
    so are logits. Another backend rounds some token to the next f16, and so to another code."""
    from nybble.frontend.pytorch.import_model import import_model

    choice, random = WeightChoice(RULES), np.random.default_rng(1)
    checkpoint = requantized(open_checkpoint(str(folder(head, 256))), choice)
    options = {"activations": "f32", "context": 256, "weights": choice, "kv": kv}
    compiler = ModelCompiler(checkpoint, CompileOptions(**options), import_model)
    model = compile_gpu_model(compiler, "sm_90a", "f16", tokens=64)
    simulated = SimulatedModel(model.plan, dict(model.weights()))
    session = Session.load(compile_checkpoint(checkpoint, **options), 1)
    cache = CodedCache(1, head, 256, kv, parse(kv).room(64))
    tokens = random.integers(0, VOCABULARY, 103)
    kept = np.zeros((2, 1, 256, head), np.float16)
    simulated.feed(*(int(one) for one in tokens[:100]))
    session.prefill(tokens[:100].tolist())
    for length in range(101, 104):
        found = simulated.feed(int(tokens[length - 1]))
        session.decode(int(tokens[length - 1]))
        for side, rows in zip(("keys.0", "values.0"), kept, strict=True):
            ring = simulated.memory[f"{side}.exact"].view(np.float16).reshape(-1, head)
            rows[0, :length] = ring[:length]
        for name, wanted in pack_cache(cache, *kept[:, None], [length]).items():
            side, _, part = name.partition("_")
            buffer = f"{'keys' if side == 'k' else 'values'}.0{part and '.'}{part}"
            assert model.plan.buffers[buffer].kind == STATE
            if part != "exact":
                assert bytes(simulated.memory[buffer]) == wanted.tobytes(), name
        held = {(role, 0): one for role, one in zip((Role.KEYS, Role.VALUES), kept, strict=True)}
        exact = references(model, [int(tokens[length - 1])], length - 1, held)[0]
        assert np.abs(found - exact).max() < 2e-3 * np.abs(exact).max()
        assert np.abs(found - session.logits).max() < 1e-2 * np.abs(exact).max()
    session.close()
    assert parse(kv).boundary(99) == 64, "the prompt left codes behind"


def references(model, tokens, first=0, caches=None):
    """The logits after each token, of the references of the operators that a plan runs.

    first: position of the first of them; caches: what was appended before.
    """
    sizes, interpreter = model.graph.dimensions, Interpreter(model.module)
    caches = {**(caches or {})}

    def bound(argument, layer, source, position):
        if argument.role in (Role.KEYS, Role.VALUES):
            shape = (sizes.kv_heads, sizes.context, sizes.head_dim)
            return caches.setdefault((argument.role, layer), np.zeros(shape, np.float32))
        if argument.role is Role.CONSTANT:
            return model.graph.constants[argument.source]
        if argument.role is Role.WEIGHT:
            name = argument.tensor(layer)
            vector = len(model.preparer.tensors[name].shape) == 1
            return model.preparer.values(name, (), layer) if vector else model.weight(name)
        return source if argument.role is Role.INPUT else position

    def call(name, layer, source, position):
        given = [bound(one, layer, source, position) for one in model.graph.functions[name]]
        return interpreter.call(f"{name}.decode", *given)

    found = []
    for position, token in enumerate(tokens, first):
        (hidden,) = call(model.graph.embed, None, np.array([token], np.int32), position)
        for layer, name in enumerate(model.graph.layers):
            hidden, *written = call(name, layer, hidden, position)
            caches |= zip(((Role.KEYS, layer), (Role.VALUES, layer)), written, strict=True)
        found.append(call(model.graph.head, None, hidden, position)[0][0])
    return found
