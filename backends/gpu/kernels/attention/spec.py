"""What a decode kernel is built for: the shape, the cache's format, how the work is split."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.attention.coded import TILE, CodedCache
from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.kv import KEYS, KvError, KvFormat, parse

ROWS = 8
"""Query heads of a tile: those that share a cache head stand side by side."""
CACHES = ("f16", "bf16", "kv8", "kv4", "kv2")
ACCEPTED = f"{', '.join(CACHES)}, kvN(page), kiviN(group,recent,pinned)"
KEY_GROUPS = (16, 32, 64)
HEAD_DIMS = (64, 128)
MOST_GROUP = 16

Softmax = Literal["online", "unified"]


class AttentionError(NybbleError):
    """An attention that no kernel of this backend computes."""


@dataclass(frozen=True)
class DecodeSpec:
    """One new token for each sequence, which attends to the keys cached for it.

    sequences, kv_heads: rows of the cache are [sequences, kv_heads, context, head_dim].
    group: query heads for each head of the cache. scale: of the logits.
    cache: the name of a format of `sparse_attn.kv`, of those that ACCEPTED spells.
    room: rows of the ring of tokens that a cache with codes keeps as they are, as the type of the
    cache has it; 0 where all of its tokens are codes.
    softmax: "online" follows the largest logit; "unified" takes `anchor`, a logit known to be near
    the largest, and falls back to "online" where that was wrong (FlashDecoding++,
    arXiv:2311.01282).
    block: where it is not 0, each head of the cache sees only blocks of so many tokens that a list
    names, and of them only tokens within the length.
    splits: blocks that share the keys of one head. warps: of a block. blocks: of a multiprocessor.
    texts: tokens of different texts that have one sequence's keys in common, each with queries of
    its own (Hydragen, arXiv:2402.05099): as many as fit are multiplied with them at once.
    part: whether the result is left before its division, with the largest logit and the sum of
    weights, to be merged with that of other keys.
    """

    sequences: int
    kv_heads: int
    group: int
    head_dim: int
    context: int
    scale: float
    cache: str = "f16"
    room: int = 0
    softmax: Softmax = "online"
    anchor: float = 0.0
    block: int = 0
    splits: int = 1
    warps: int = 4
    blocks: int = 2
    texts: int = 1
    part: bool = False

    def __post_init__(self) -> None:
        if self.head_dim not in HEAD_DIMS:
            raise AttentionError(f"head dimension {self.head_dim}", accepted="64 or 128")
        if not 1 <= self.group <= MOST_GROUP:
            accepted = f"1 to {MOST_GROUP} query heads for each cache head"
            raise AttentionError(f"a group of {self.group} query heads", accepted=accepted)
        self._check_cache()
        if self.context % self.step:
            accepted = f"a multiple of {self.step}"
            raise AttentionError(f"a cache of {self.context} tokens", accepted=accepted)
        if self.block % self.step or (self.block and self.context % self.block):
            accepted = f"a multiple of {self.step} that divides {self.context}"
            raise AttentionError(f"blocks of {self.block} tokens", accepted=accepted)
        if not self.scale > 0:
            raise AttentionError(f"a scale of {self.scale}", accepted="a positive one")
        if self.texts < 1 or (self.texts > 1 and self.sequences > 1):
            raise AttentionError(
                f"{self.texts} texts with the keys of {self.sequences} sequences in common",
                accepted="1 or more of one sequence",
            )

    def _check_cache(self) -> None:
        """Raise AttentionError or KvError for a format or a room that no kernel reads."""
        if not is_read(self.cache):
            raise AttentionError(f"a cache of '{self.cache}'", accepted=ACCEPTED)
        kv = self.format
        if self.quantized and kv.key_group not in KEY_GROUPS:
            accepted = f"{', '.join(map(str, KEY_GROUPS))} tokens for each scale of the keys"
            raise AttentionError(f"a group of {kv.key_group} keys", accepted=accepted)
        if self.head_dim * self.bits < 8 * 32:
            raise AttentionError(
                f"a '{self.cache}' cache of rows of {self.head_dim}",
                accepted="a head dimension of 128",
            )
        least = kv.room(1)
        if (self.room or kv.recent or kv.pinned) and not 0 < least <= self.room:
            raise AttentionError(
                f"room for {self.room} tokens as they are in '{self.cache}'",
                accepted=f"{least} or more" if least else "0",
            )
        if self.room and self.block:
            raise AttentionError(
                f"blocks of {self.block} tokens of '{self.cache}' with tokens as they are",
                accepted="all tokens, or a room of 0",
            )
        kv.check(self.context, self.head_dim)

    @property
    def format(self) -> KvFormat:
        """What the cache holds."""
        return parse(self.cache)

    @property
    def key_group(self) -> int:
        """Tokens that share a scale of a channel of the keys."""
        return self.format.key_group

    @property
    def value_groups(self) -> int:
        """Scales of a token's values."""
        return self.coded.value_groups if self.quantized else 0

    @property
    def coded(self) -> CodedCache:
        """Where what a cache with codes has lies."""
        return CodedCache(self.heads, self.head_dim, self.context, self.cache, self.room)

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
    def texts_at_once(self) -> int:
        """Texts whose queries a block of threads has."""
        return min(self.texts, MOST_GROUP // self.group)

    @property
    def queries(self) -> int:
        """Queries of a block: those for one head of the cache, of all its texts."""
        return self.group * self.texts_at_once

    @property
    def jobs(self) -> int:
        """What blocks that share keys have in common: a head of the cache and some texts."""
        return self.heads * ceil(self.texts / self.texts_at_once)

    @property
    def rows(self) -> int:
        """Queries in all."""
        return self.heads * self.group * self.texts

    @property
    def query_tiles(self) -> int:
        """Tiles of 8 queries."""
        return ceil(self.queries / ROWS)

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

        q, out: [sequences or texts, kv_heads * group, head_dim], or instead of out, of a part, max
        and sum [.., kv_heads * group] and acc [.., kv_heads * group, head_dim], see
        `sparse_attn.partial`; k, v: [sequences, kv_heads, context,
        head_dim]; of a cache with codes also `CodedCache.parameters` of each; lengths: keys of each
        sequence, so that what is a code follows from its last one (`KvFormat.boundary`);
        block_list: [.., context / block], of which the first `block_counts` [..] count, and the
        very first is always the number of a block; each stands there once. Where keys are split:
        partial and statistics are scratch, counters are 0 before the first launch and after every
        one.
        """
        rows, half = self.rows, self.half
        found = [Parameter("q", half, Access.READ, rows * self.head_dim * 2)]
        if self.quantized:
            found += self.coded.parameters(Access.READ)
        else:
            found += [Parameter(one, half, Access.READ, self.cache_bytes) for one in "kv"]
        found.append(Parameter("lengths", "i32", Access.READ, self.sequences * 4))
        if self.block:
            entries = self.heads * (self.context // self.block) * 4
            found.append(Parameter("block_list", "i32", Access.READ, entries))
            found.append(Parameter("block_counts", "i32", Access.READ, self.heads * 4))
        if self.part:
            found += [Parameter(one, "f32", Access.WRITE, rows * 4) for one in ("max", "sum")]
            found.append(Parameter("acc", "f32", Access.WRITE, rows * self.head_dim * 4))
        else:
            found.append(Parameter("out", half, Access.WRITE, rows * self.head_dim * 2))
        if self.splits > 1:
            partial = self.jobs * self.queries * self.splits * 4
            found += [
                Parameter("partial", "f32", Access.UPDATE, partial * self.head_dim),
                Parameter("statistics", "f32", Access.UPDATE, partial * 2),
                Parameter("counters", "i32", Access.UPDATE, self.jobs * 4),
            ]
        return tuple(found)


def is_read(cache: str) -> bool:
    """Whether decode reads a cache of this format: numbers of 16 bits or codes without more."""
    try:
        kv = parse(cache)
    except KvError:
        return False
    coded = not kv.is_coded or kv.has_codes(KEYS)
    return kv.exact != "f32" and coded and not (kv.is_corrected or kv.integers or kv.turned)
