"""How the type of a cache is written in IR, for texts that have its format in them."""

from collections.abc import Sequence

from nybble.dialects.sparse_attn.cache_type import CacheType
from nybble.dialects.sparse_attn.kv import parse
from nybble.passes.quantize_cache import needs_quantizing


def cache_text(side: str, shape: Sequence[int], kv: str, rows: int) -> str:
    """The type of a cache [heads, context, head_dim] that up to `rows` tokens are appended to."""
    if needs_quantizing(kv):
        return str(CacheType.of(side, shape, parse(kv), rows))
    return f"tensor<{'x'.join(map(str, shape))}x{kv}>"
