"""Formats of key-value caches as data: `parse("kivi4")` and what follows from it."""

from nybble.dialects.sparse_attn.kv.errors import KvError
from nybble.dialects.sparse_attn.kv.format import KEYS, SIDES, VALUES, KvFormat, block_of
from nybble.dialects.sparse_attn.kv.grammar import EXACT, LATER, NAMES, parse

__all__ = [
    "EXACT", "KEYS", "LATER", "NAMES", "SIDES", "VALUES", "KvError", "KvFormat", "block_of",
    "parse",
]  # fmt: skip
