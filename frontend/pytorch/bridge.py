"""Puts nybble's operators in place of what transformers' modules would call."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from nybble.frontend.pytorch import operators
from nybble.frontend.pytorch.architectures import Architecture
from nybble.frontend.pytorch.modules import QuantEmbedding, QuantLinear, RmsNorm
from nybble.frontend.pytorch.storage import Storage

ATTENTION = "nybble"  # the name of the attention function in transformers' table


@dataclass(frozen=True)
class PositionedTable:
    """A whole RoPE table f32 [C, D/2] and the position of token 0, carried as one argument."""

    table: Tensor
    pos: Tensor


class LayerCache:
    """The key-value cache of one layer, in the duck type that transformers' attention calls."""

    def __init__(self, keys: Tensor, values: Tensor, pos: Tensor):
        """keys, values: [G, C, D]; pos: 0-d int64."""
        self.keys = keys
        self.values = values
        self._pos = pos

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, **_: object
    ) -> tuple[Tensor, Tensor]:
        """Append rows [1, G, S, D]; the new whole caches."""
        self.keys = operators.append_kv(self.keys, keys, self._pos)
        self.values = operators.append_kv(self.values, values, self._pos)
        return self.keys, self.values


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    position_ids: Tensor,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """transformers' attention interface; key and value are whole caches, position_ids is `pos`."""
    result = operators.attention(query, key, value, position_ids, scaling, sliding_window, softcap)
    return result, None


def _rotate(
    q: Tensor, k: Tensor, cos: PositionedTable, sin: PositionedTable
) -> tuple[Tensor, Tensor]:
    """transformers' apply_rotary_pos_emb on whole tables."""
    rotated = [operators.rope(x, cos.table, sin.table, cos.pos) for x in (q, k)]
    return rotated[0], rotated[1]


@contextmanager
def bridged(architecture: Architecture, model: PreTrainedModel) -> Generator[None]:
    """Within it, the layers of `model` call nybble's attention and rotary embedding."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
    model.set_attn_implementation(ATTENTION)
    modeling = architecture.modeling
    original = modeling.apply_rotary_pos_emb
    modeling.__dict__["apply_rotary_pos_emb"] = _rotate
    try:
        yield
    finally:
        modeling.__dict__["apply_rotary_pos_emb"] = original


def swap_modules(
    root: nn.Module, prefix: str, architecture: Architecture, storage: Storage
) -> None:
    """Replace the linear and norm modules under `root` in place.

    prefix: the name of `root` in the model with a dot at its end, "model.layers.0.", to which
    names of parameters are relative.
    """
    for name, module in list(root.named_modules()):
        swapped = _swap(module, prefix + name, architecture, storage)
        if swapped is not None:
            root.set_submodule(name, swapped)


def _swap(
    module: nn.Module, name: str, architecture: Architecture, storage: Storage
) -> nn.Module | None:
    if isinstance(module, nn.Linear):
        return swap_linear(module, name, storage)
    if isinstance(module, architecture.norm_class):
        return swap_norm(module, name, architecture, storage)
    return None


def swap_linear(module: nn.Linear, name: str, storage: Storage) -> QuantLinear:
    """The module called `name` with its weight (and bias) from `storage`."""
    shape = (module.out_features, module.in_features)
    weight, fmt = storage.matrix(f"{name}.weight", shape)
    has_bias = "bias" in dict(module.named_parameters())
    bias = storage.vector(f"{name}.bias", shape[0]) if has_bias else None
    return QuantLinear(weight, bias, fmt, shape)


def swap_norm(
    module: nn.Module, name: str, architecture: Architecture, storage: Storage
) -> RmsNorm:
    """The norm called `name` with its weight from `storage`."""
    length = module.get_parameter("weight").shape[0]
    weight = storage.vector(f"{name}.weight", length)
    # The families spell it in two ways.
    eps: float = getattr(module, "variance_epsilon", None) or getattr(module, "eps")  # noqa: B009
    return RmsNorm(weight, eps, unit_offset=architecture.unit_offset)


def swap_embedding(module: nn.Embedding, name: str, storage: Storage) -> QuantEmbedding:
    """The embedding called `name` with its table from `storage`."""
    shape = (module.num_embeddings, module.embedding_dim)
    weight, fmt = storage.matrix(f"{name}.weight", shape)
    scale = getattr(module, "scalar_embed_scale", 1.0)
    return QuantEmbedding(weight, fmt, shape, scale)
