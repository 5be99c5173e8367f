"""What a decode kernel is built for: the shape, the cache's format, how the work is split."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from nybble.backends.gpu.image import Access, Parameter
from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.kv import KvFormat, parse

TILE = 16
"""Keys of a tile: the depth of the products with the values."""
ROWS = 8
"""Query heads of a tile: those that share a cache head stand side by side."""
CACHES = ("f16", "bf16", "kv8", "kv4", "kv2")
HEAD_DIMS = (64, 128)
MOST_GROUP = 16

Cache = Literal["f16", "bf16", "kv8", "kv4", "kv2"]
Softmax = Literal["online", "unified"]


class AttentionError(NybbleError):
    """An attention that no kernel of this backend computes."""


@dataclass(frozen=True)
class DecodeSpec:
    """One new token for each sequence, which attends to the keys cached for it.

    sequences, kv_heads: rows of the cache are [sequences, kv_heads, context, head_dim].
    group: query heads for each head of the cache. scale: of the logits.
    cache: a format of `sparse_attn.kv`, of those in CACHES. The pages of "kv8", "kv4" and "kv2"
    have `key_group` tokens; no token is left as it is.
    softmax: "online" follows the largest logit; "unified" takes `anchor`, a logit known to be near
    the largest, and falls back to "online" where that was wrong (FlashDecoding++,
    arXiv:2311.01282).
    block: where it is not 0, each head of the cache sees only blocks of so many tokens that a list
    names, and of them only tokens within the length.
    splits: blocks that share the keys of one head. warps: of a block. blocks: of a multiprocessor.
    """

    sequences: int
    kv_heads: int
    group: int
    head_dim: int
    context: int
    scale: float
    cache: Cache = "f16"
    key_group: int = 64
    softmax: Softmax = "online"
    anchor: float = 0.0
    block: int = 0
    splits: int = 1
    warps: int = 4
    blocks: int = 2

    def __post_init__(self) -> None:
        if self.head_dim not in HEAD_DIMS:
            raise AttentionError(f"head dimension {self.head_dim}", accepted="64 or 128")
        if not 1 <= self.group <= MOST_GROUP:
            accepted = f"1 to {MOST_GROUP} query heads for each cache head"
            raise AttentionError(f"a group of {self.group} query heads", accepted=accepted)
        if self.cache not in CACHES:
            raise AttentionError(f"a cache of '{self.cache}'", accepted=", ".join(CACHES))
        if self.key_group not in (32, 64):
            accepted = "32 or 64 tokens for each scale of the keys"
            raise AttentionError(f"a group of {self.key_group} keys", accepted=accepted)
        if self.head_dim * self.bits < 8 * 32:
            accepted = "a head dimension of 128"
            raise AttentionError(
                f"a '{self.cache}' cache of rows of {self.head_dim}", accepted=accepted
            )
        if self.context % self.step:
            accepted = f"a multiple of {self.step}"
            raise AttentionError(f"a cache of {self.context} tokens", accepted=accepted)
        if self.block % self.step or (self.block and self.context % self.block):
            accepted = f"a multiple of {self.step} that divides {self.context}"
            raise AttentionError(f"blocks of {self.block} tokens", accepted=accepted)
        if not self.scale > 0:
            raise AttentionError(f"a scale of {self.scale}", accepted="a positive one")

    @property
    def format(self) -> KvFormat:
        """What the cache holds."""
        paged = self.cache.startswith("kv")
        return parse(f"{self.cache}({self.key_group})" if paged else self.cache)

    @property
    def bits(self) -> int:
        """Of an element of the cache."""
        return self.format.bits

    @property
    def quantized(self) -> bool:
        """Whether the cache holds codes."""
        return self.format.is_coded

    @property
    def half(self) -> Literal["f16", "bf16"]:
        """The type of queries, results and products."""
        return "bf16" if self.cache == "bf16" else "f16"

    @property
    def tiles(self) -> int:
        """Tiles of 16 keys that a warp takes at once."""
        return self.key_group // TILE if self.quantized else 1

    @property
    def step(self) -> int:
        """Keys that a warp takes at once."""
        return self.tiles * TILE

    @property
    def heads(self) -> int:
        """Heads of the cache, of all sequences."""
        return self.sequences * self.kv_heads

    @property
    def query_tiles(self) -> int:
        """Tiles of 8 query heads."""
        return ceil(self.group / ROWS)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps

    @property
    def cache_bytes(self) -> int:
        """Of the keys, and as many of the values."""
        return self.heads * self.context * self.head_dim * self.bits // 8

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The kernel's parameters.

        q, out: [sequences, kv_heads * group, head_dim]; k, v: [sequences, kv_heads, context,
        head_dim], codes of a byte lowest bits first; k_scales, k_minima: [.., context / key_group,
        head_dim]; v_scales, v_minima: [.., context]; lengths: keys of each sequence; block_list:
        [.., context / block], of which the first `block_counts` [..] count, and the very first is
        always the number of a block; each stands there once. Where keys are split: partial and
        statistics are scratch, counters are 0 before the first launch and after every one.
        """
        rows = self.heads * self.group
        half, element = self.half, "u8" if self.quantized else self.half
        found = [
            Parameter("q", half, Access.READ, rows * self.head_dim * 2),
            Parameter("k", element, Access.READ, self.cache_bytes),
            Parameter("v", element, Access.READ, self.cache_bytes),
        ]
        if self.quantized:
            groups = self.heads * self.context // self.key_group * self.head_dim * 2
            tokens = self.heads * self.context * 2
            for one, size in (
                ("k_scales", groups),
                ("k_minima", groups),
                ("v_scales", tokens),
                ("v_minima", tokens),
            ):
                found.append(Parameter(one, "f16", Access.READ, size))
        found.append(Parameter("lengths", "i32", Access.READ, self.sequences * 4))
        if self.block:
            entries = self.heads * (self.context // self.block) * 4
            found.append(Parameter("block_list", "i32", Access.READ, entries))
            found.append(Parameter("block_counts", "i32", Access.READ, self.heads * 4))
        found.append(Parameter("out", half, Access.WRITE, rows * self.head_dim * 2))
        if self.splits > 1:
            partial = rows * self.splits * 4
            found += [
                Parameter("partial", "f32", Access.UPDATE, partial * self.head_dim),
                Parameter("statistics", "f32", Access.UPDATE, partial * 2),
                Parameter("counters", "i32", Access.UPDATE, self.heads * 4),
            ]
        return tuple(found)
