"""The parts a model is exported in: embedding, decoder layer, head."""

from typing import Any

from torch import Tensor, nn

from nybble.frontend.pytorch.architectures import Architecture
from nybble.frontend.pytorch.bridge import (
    LayerCache,
    PositionedTable,
    swap_embedding,
    swap_linear,
    swap_modules,
    swap_norm,
)
from nybble.frontend.pytorch.storage import Storage

EMBEDDING = "model.embed_tokens"
HEAD = "lm_head"
FINAL_NORM = "model.norm"


class EmbedPart(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, model: nn.Module, storage: Storage):
        super().__init__()
        module = model.get_submodule(EMBEDDING)
        assert isinstance(module, nn.Embedding)
        self.embed_tokens = swap_embedding(module, EMBEDDING, storage)

    def forward(self, ids: Tensor) -> Tensor:
        """int32 [1, S] -> f32 [1, S, F]."""
        return self.embed_tokens(ids)


class LayerPart(nn.Module):
    """One decoder layer with explicit cache and position."""

    def __init__(self, model: nn.Module, index: int, architecture: Architecture, storage: Storage):
        super().__init__()
        prefix = f"model.layers.{index}"
        self.layer = model.get_submodule(prefix)
        swap_modules(self.layer, f"{prefix}.", architecture, storage)

    def forward(
        self, h: Tensor, pos: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """h f32 [1, S, F]; pos 0-d int64; cos, sin f32 [C, D/2]; keys, values [G, C, D].

        Returns the new h, keys and values.
        """
        cache = LayerCache(keys, values, pos)
        h = self.layer(
            h,
            attention_mask=None,
            position_ids=pos,
            position_embeddings=(PositionedTable(cos, pos), PositionedTable(sin, pos)),
            past_key_values=cache,
        )
        return h, cache.keys, cache.values


class HeadPart(nn.Module):
    """Hidden states to logits."""

    def __init__(self, model: nn.Module, head: str, architecture: Architecture, storage: Storage):
        """head: name of the module whose weight is the head's: its own or the embedding's."""
        super().__init__()
        linear = model.get_submodule(HEAD)
        assert isinstance(linear, nn.Linear)
        self.norm = swap_norm(model.get_submodule(FINAL_NORM), FINAL_NORM, architecture, storage)
        self.lm_head = swap_linear(linear, head, storage)

    def forward(self, h: Tensor) -> Tensor:
        """f32 [1, S, F] -> f32 [1, S, vocabulary]."""
        return self.lm_head(self.norm(h))


def head_module(config: Any) -> str:
    """The module that holds the head's weight."""
    return EMBEDDING if config.tie_word_embeddings else HEAD
