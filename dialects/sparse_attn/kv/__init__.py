"""Formats of key-value caches as data: `parse("kivi4")` and what follows from it."""

from nybble.dialects.sparse_attn.kv.errors import KvError
from nybble.dialects.sparse_attn.kv.format import (
    EXACT,
    KEYS,
    LATER,
    NAMES,
    SIDES,
    VALUES,
    KvFormat,
    parse,
)

__all__ = ["EXACT", "KEYS", "LATER", "NAMES", "SIDES", "VALUES", "KvError", "KvFormat", "parse"]
