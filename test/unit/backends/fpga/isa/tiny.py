"""A tiny model of the llama class on a tiny accelerator, with random weights, and a reference."""

from dataclasses import dataclass, replace

import numpy as np

from nybble.backends.fpga.isa.image import Layer, build
from nybble.backends.fpga.isa.machine import find_machine
from nybble.backends.fpga.isa.plan import make_plan
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.frontend.weight_rules import parse_rules
from nybble.tools.shape_graph import shape_module
from nybble.tools.shape_model import ModelShape

CONTEXT = 64


def shape(**sizes):
    """A model of two layers; sizes replace some."""
    usual = ModelShape(2, 64, 96, 4, 2, 16, 80, 1e4, False, "tiny")
    return replace(usual, **sizes)


def machine(**sizes):
    """Two regions with small units and buffers."""
    small = {
        "regions": 2, "channels": 2, "vector_rows": 8, "vector_start": 32, "matrix_tokens": 16,
        "weights": 1 << 13, "params": 1 << 13, "activations": 1 << 14, "values": 1 << 17,
    }  # fmt: skip
    return replace(find_machine("vhk158"), **{**small, **sizes})


def target_with_memory(size):
    """The VHK158 with a memory of so many bytes."""
    target = find_machine("vhk158").target
    *others, main = target.memory
    return replace(target, memory=(*others, replace(main, size=replace(main.size, value=size))))


def plan_of(sizes, rules="w8,head=w8", accelerator=None, context=CONTEXT):
    """The plan of a model."""
    module = shape_module(sizes, "w8", context, "f32", parse_rules(rules))
    return make_plan(module, ("layer_0",) * sizes.layers, context, accelerator or machine())


@dataclass
class Tiny:
    """A plan with weights. layers, head: as the image takes them."""

    plan: object
    layers: list
    head: Layer
    cos: np.ndarray
    sin: np.ndarray

    def memories(self):
        """Fresh memory of each region."""
        return build(self.plan, self.layers, self.head, self.cos, self.sin)


def tiny(sizes, rules="w8,head=w8", accelerator=None, seed=0):
    """A model with random weights; caches that hold codes of magnitudes up to 6."""
    plan = plan_of(sizes, rules, accelerator)
    random = np.random.default_rng(seed)
    angles = np.outer(np.arange(CONTEXT), 1e4 ** -(np.arange(sizes.head // 2) * 2 / sizes.head))
    tables = (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
    layers = [_layer(plan.layer, random) for _ in range(sizes.layers)]
    return Tiny(plan, layers, _layer(plan.head, random), *tables)


def _layer(function, random):
    weights, norms = {}, {}
    for argument in function.body.block.args:
        if isinstance(argument.type, LowBitTensorType):
            form = argument.type.number_format
            rows, cols = argument.type.rows, argument.type.cols
            values = random.standard_normal((rows, cols)).astype(np.float32) / np.sqrt(cols)
            weights[argument.name_hint] = form.quantize(values.astype(np.float32))
        elif argument.name_hint.endswith("norm_weight"):
            size = argument.type.get_shape()[0]
            norms[argument.name_hint] = 1 + 0.1 * random.standard_normal(size).astype(np.float32)
    return Layer(weights, norms, 6.0, 6.0)


def numbers_of(weight):
    """The numbers that a weight means, f64 [rows, columns]."""
    numbers = (weight.codes.astype(np.int64) - weight.zero_point).astype(np.float64)
    if weight.kept is not None:
        numbers = numbers * weight.kept
    groups = weight.scale.shape[1]
    return numbers * np.repeat(weight.scale, numbers.shape[1] // groups, axis=1)


def half(values):
    """Rounded to f16, as the buffer of values holds them."""
    return values.astype(np.float16).astype(np.float32)


def coded(values):
    """Values as 8-bit codes with a scale for each row mean them."""
    scale = (np.abs(values).max(axis=-1, keepdims=True) / 127).astype(np.float32)
    codes = np.clip(np.rint(values / np.where(scale > 0, scale, 1)), -127, 127)
    return codes * scale.astype(np.float64)


def cached(values, largest):
    """Keys or values as the caches hold them."""
    scale = np.float32(largest / 127)
    return np.clip(np.rint(values / scale), -127, 127) * np.float64(scale)


def reference(model, hidden):
    """The logits of the last token of hidden f32 [n, hidden], in the number formats of the
    accelerator but tensor by tensor: f32 [vocabulary]."""
    sizes = model.plan.sizes
    stream = half(hidden)
    for layer in model.layers:
        stream = _reference_layer(model, layer, stream, sizes)
    last = stream[-1:]
    normed = coded(_norm(last, model.head.norms["norm_weight"], sizes.eps))
    return half(normed @ numbers_of(model.head.weights["lm_head_weight"]).T)[0]


def _reference_layer(model, layer, stream, sizes):
    def product(values, name):
        return half((values @ numbers_of(layer.weights[name]).T).astype(np.float32))

    normed = coded(_norm(stream, layer.norms["input_layernorm_weight"], sizes.eps))
    query, key, value = (product(normed, f"self_attn_{one}_proj_weight") for one in "qkv")
    query, key = (half(_rope(one, model, sizes.head)) for one in (query, key))
    per_region = model.plan.heads * (sizes.heads // sizes.kv_heads) * sizes.head
    query = np.concatenate(
        [coded(query[:, at : at + per_region]) for at in range(0, query.shape[1], per_region)], 1
    )
    key, value = cached(key, layer.keys), cached(value, layer.values)
    heads = [_head(query, key, value, index, sizes) for index in range(sizes.heads)]
    mixed = coded(np.concatenate(heads, axis=1))
    stream = half(stream + product(mixed, "self_attn_o_proj_weight"))
    normed = coded(_norm(stream, layer.norms["post_attention_layernorm_weight"], sizes.eps))
    gate, up = product(normed, "mlp_gate_proj_weight"), product(normed, "mlp_up_proj_weight")
    inner = half(half(gate / (1 + np.exp(-gate))) * up)
    return half(stream + product(coded(inner), "mlp_down_proj_weight"))


def _head(query, key, value, index, sizes):
    size, kv = sizes.head, index // (sizes.heads // sizes.kv_heads)
    mine = query[:, index * size : (index + 1) * size]
    scores = half((mine @ key[:, kv * size : (kv + 1) * size].T * sizes.scale).astype(np.float32))
    seen = np.tril(np.ones(scores.shape, bool))
    scores = np.where(seen, scores, -np.inf)
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights = coded((raised / raised.sum(axis=1, keepdims=True)).astype(np.float32))
    return half((weights @ value[:, kv * size : (kv + 1) * size]).astype(np.float32))


def _norm(values, weight, eps):
    mean = np.square(values).mean(axis=1, keepdims=True, dtype=np.float32)
    return (values / np.sqrt(mean + np.float32(eps)) * weight).astype(np.float32)


def _rope(values, model, head):
    halves = values.reshape(len(values), -1, head)
    cos, sin = (one[: len(values), None] for one in (model.cos, model.sin))
    low, high = halves[..., : head // 2], halves[..., head // 2 :]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1).reshape(
        values.shape
    )
