"""Models of every architecture: swapped modules and raised functions against transformers."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")
pytest.importorskip("transformers", reason="needs nybble[torch]")

from nybble.dialects.errors import NybbleError  # noqa: E402
from nybble.dialects.interpreter import Interpreter  # noqa: E402
from nybble.dialects.lowbit import formats  # noqa: E402
from nybble.dialects.lowbit.types import LowBitTensorType  # noqa: E402
from nybble.dialects.registry import make_context  # noqa: E402
from nybble.frontend.graph import ModelGraph, Role  # noqa: E402
from nybble.frontend.pytorch.architectures import (  # noqa: E402
    ARCHITECTURES,
    find_architecture,
    layer_type,
    make_config,
)
from nybble.frontend.pytorch.bridge import bridged  # noqa: E402
from nybble.frontend.pytorch.import_model import (  # noqa: E402
    import_model,
    open_model,
    rope_constants,
)
from nybble.frontend.pytorch.parts import (  # noqa: E402
    EmbedPart,
    HeadPart,
    LayerPart,
    head_module,
)
from nybble.frontend.pytorch.storage import LoadedStorage  # noqa: E402
from nybble.passes.raise_torch_to_operators import RaiseTorchToOperators  # noqa: E402

CONTEXT = 16
STEPS = (7, 1, 3)  # tokens of each call: a prefill, a decode step, a prefill in the middle
COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 64,
    "vocab_size": 48,
    "max_position_embeddings": 64,
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
    "mistral": COMMON | {"sliding_window": 4},
    "qwen2": {k: v for k, v in COMMON.items() if k != "head_dim"},
    "qwen3": COMMON
    | {"sliding_window": 4, "use_sliding_window": True, "layer_types": MIXED}
    | {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "gemma3": COMMON | {"sliding_window": 4, "query_pre_attn_scalar": 24, "layer_types": MIXED},
}


@dataclass(frozen=True)
class Stored:
    """A parameter kept in a number format."""

    format: str
    shape: tuple[int, ...]
    values: np.ndarray

    def raw(self) -> np.ndarray:
        rows = self.values.reshape(-1, self.shape[-1])
        form = formats.get(self.format)
        return form.pack(form.quantize(rows))


@dataclass(frozen=True)
class Checkpoint:
    """What an import needs of a model file."""

    architecture: str
    config: dict[str, object]
    tensors: dict[str, Stored]


def original(architecture: str, **changes):
    """transformers' own model with random parameters."""
    torch.manual_seed(len(architecture))
    family = find_architecture(architecture)
    config = make_config(family, CONFIGS[architecture] | changes)
    config._attn_implementation = "eager"
    model = getattr(family.modeling, f"{family.prefix}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def checkpoint_of(architecture: str, model, matrix_format: str = "f32") -> Checkpoint:
    """The model's parameters as if a file held them."""
    tensors = {
        name: Stored("f32" if values.ndim == 1 else matrix_format, tuple(values.shape), values)
        for name, values in ((n, p.detach().numpy()) for n, p in model.named_parameters())
    }
    return Checkpoint(architecture, dict(CONFIGS[architecture]), tensors)


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def case(request):
    """(checkpoint, token ids, transformers' logits) of one architecture."""
    model = original(request.param)
    ids = torch.arange(sum(STEPS))[None] * 7 % COMMON["vocab_size"]
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0].numpy()
    return checkpoint_of(request.param, model), ids.to(torch.int32), logits


def spans():
    """First token and end of every call."""
    ends = np.cumsum(STEPS)
    return zip(ends - STEPS, ends, strict=True)


def test_every_architecture_has_a_case():
    assert sorted(CONFIGS) == sorted(ARCHITECTURES)


def run_swapped(checkpoint: Checkpoint, ids: torch.Tensor) -> np.ndarray:
    """The logits of transformers' model with nybble's modules in it; ids: int32 [1, tokens]."""
    model = open_model(checkpoint, CONTEXT, "f32")
    constants = rope_constants(model)
    storage = LoadedStorage(checkpoint.tensors)
    size = model.dimensions
    shape = (size.kv_heads, CONTEXT, size.head_dim)
    caches = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(size.layers)]
    found = []
    with bridged(model.architecture, model.module), torch.no_grad():
        embed = EmbedPart(model.module, storage)
        layers = [
            LayerPart(model.module, index, model.architecture, storage)
            for index in range(size.layers)
        ]
        head = HeadPart(model.module, head_module(model.config), model.architecture, storage)
        for start, end in spans():
            pos = torch.tensor(start)
            h = embed(ids[:, start:end])
            for index, layer in enumerate(layers):
                kind = layer_type(model.config, index)
                tables = [
                    torch.from_numpy(constants.get(f"rope.{t}", constants.get(f"rope.{kind}.{t}")))
                    for t in ("cos", "sin")
                ]
                h, *caches[index] = layer(h, pos, *tables, *caches[index])
            found.append(head(h)[0].numpy())
    return np.concatenate(found)


def test_swapped_modules_give_the_original_logits(case):
    checkpoint, ids, expected = case
    found = run_swapped(checkpoint, ids)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def weight_of(checkpoint, name, type_):
    """A stored parameter as the interpreter wants it for an argument of this type."""
    stored = checkpoint.tensors[name]
    weight = formats.get(stored.format).unpack(stored.raw(), stored.shape[-1])
    return weight if isinstance(type_, LowBitTensorType) else weight.dequantize()[0]


def run_raised(graph: ModelGraph, checkpoint: Checkpoint, ids: np.ndarray) -> np.ndarray:
    """The logits that the reference interpreter finds for the raised functions."""
    module = graph.module()
    RaiseTorchToOperators().apply(make_context(), module)
    module.verify()
    interpreter = Interpreter(module)
    types = {function.sym_name.data: function.function_type.inputs for function in module.ops}
    size = graph.dimensions
    shape = (size.kv_heads, size.context, size.head_dim)
    caches = [[np.zeros(shape, np.float32) for _ in range(2)] for _ in graph.layers]

    def call(name, hidden, pos=0, layer=None):
        keys, values = (None, None) if layer is None else caches[layer]
        given = {
            Role.INPUT: hidden,
            Role.POSITION: pos,
            Role.KEYS: keys,
            Role.VALUES: values,
        }
        bound = [
            given.get(argument.role)
            if argument.role in given
            else graph.constants.get(argument.source)
            if argument.role is Role.CONSTANT
            else weight_of(checkpoint, argument.tensor(layer), type_)
            for argument, type_ in zip(graph.functions[name], types[name], strict=True)
        ]
        return interpreter.call(name, *bound)

    found = []
    for start, end in spans():
        (h,) = call(graph.embed, ids[start:end])
        for layer, name in enumerate(graph.layers):
            h, *caches[layer] = call(name, h, int(start), layer)
        found += call(graph.head, h)
    return np.concatenate(found)


def test_raised_functions_give_the_original_logits(case):
    checkpoint, ids, expected = case
    graph = import_model(checkpoint, CONTEXT, "f32")
    found = run_raised(graph, checkpoint, ids[0].numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", ["nvfp4_scaled", "i4:g=16:s=f16:sparse=2of4"])
def test_weights_may_be_streams_of_bytes(spec):
    checkpoint = checkpoint_of("llama", original("llama"), spec)
    ids = torch.arange(sum(STEPS), dtype=torch.int32)[None]
    found = run_raised(import_model(checkpoint, CONTEXT, "f32"), checkpoint, ids[0].numpy())
    np.testing.assert_allclose(found, run_swapped(checkpoint, ids), atol=1e-4, rtol=1e-4)


def test_equal_layers_share_one_function():
    model = original("llama", num_hidden_layers=4)
    checkpoint = checkpoint_of("llama", model, "q8_0")
    checkpoint.config["num_hidden_layers"] = 4
    odd = "model.layers.2.mlp.up_proj.weight"
    checkpoint.tensors[odd] = replace(checkpoint.tensors[odd], format="q4_0")
    graph = import_model(checkpoint, CONTEXT, "f16")
    assert graph.layers == ("layer_0", "layer_0", "layer_1", "layer_0")
    assert list(graph.functions) == ["embed", "layer_0", "layer_1", "head"]
    module = graph.module()
    RaiseTorchToOperators().apply(make_context(), module)
    text = str(module)
    assert text.count('!lowbit.tensor<64x32, "q4_0"> {') == 1
    assert "tensor<2x16x16xf16>" in text


def test_weights_are_bound_by_name():
    checkpoint = checkpoint_of("llama", original("llama"))
    graph = import_model(checkpoint, CONTEXT, "f32")
    bound = {argument.name: argument for argument in graph.functions["layer_0"]}
    up = bound["mlp_up_proj_weight"]
    assert up.source == "model.layers.{layer}.mlp.up_proj.weight"
    assert up.tensor(1) == "model.layers.1.mlp.up_proj.weight"
    head = graph.functions["head"][-1]
    assert head.source == "model.embed_tokens.weight", "the embedding is tied to the head"
    assert [a.name for a in graph.functions["layer_0"][:6]] == [
        "hidden", "pos", "cos", "sin", "keys", "values",
    ]  # fmt: skip


def test_a_saved_graph_is_read_back(tmp_path):
    graph = import_model(checkpoint_of("gemma3", original("gemma3")), CONTEXT, "f32")
    graph.save(tmp_path)
    found = ModelGraph.load(tmp_path)
    assert sorted(found.constants) == sorted(graph.constants)
    for name, values in graph.constants.items():
        np.testing.assert_array_equal(found.constants[name], values)
    assert replace(found, constants={}) == replace(graph, constants={})


def test_a_damaged_graph_is_rejected(tmp_path):
    (tmp_path / "graph.json").write_text("{}")
    with pytest.raises(NybbleError, match="no saved model graph"):
        ModelGraph.load(tmp_path)


BAD_OPTIONS = {
    "hidden_act": ({"hidden_act": "relu"}, "unsupported activation function 'relu'"),
    "rope": (
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "unsupported rotary embedding type 'dynamic'",
    ),
    "context": ({"max_position_embeddings": 8}, "a context of 16 tokens does not fit"),
    "heads": ({"hidden_size": "wide"}, "transformers rejects the model's configuration"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_unsupported_options_are_rejected(name):
    changes, message = BAD_OPTIONS[name]
    checkpoint = Checkpoint("llama", COMMON | changes, {})
    with pytest.raises(NybbleError, match=message):
        import_model(checkpoint, CONTEXT, "f32")


def test_an_unknown_architecture_is_rejected():
    with pytest.raises(NybbleError, match=r"'bert' \(accepted: llama, mistral, qwen2"):
        import_model(Checkpoint("bert", {}, {}), CONTEXT, "f32")


def test_an_unknown_cache_type_is_rejected():
    with pytest.raises(NybbleError, match="unknown cache type 'i4'"):
        import_model(Checkpoint("llama", COMMON, {}), CONTEXT, "i4")


def test_an_absent_tensor_is_named():
    checkpoint = checkpoint_of("llama", original("llama"))
    del checkpoint.tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(NybbleError, match=r"no tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        import_model(checkpoint, CONTEXT, "f32")


def test_a_tensor_of_the_wrong_shape_is_named():
    checkpoint = checkpoint_of("llama", original("llama"))
    name = "model.norm.weight"
    checkpoint.tensors[name] = replace(checkpoint.tensors[name], shape=(31,))
    with pytest.raises(NybbleError, match=r"'model\.norm\.weight' has shape 31 \(accepted: 32"):
        import_model(checkpoint, CONTEXT, "f32")
