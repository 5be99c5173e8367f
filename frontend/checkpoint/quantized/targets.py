"""Lists of layer names and patterns in a configuration, as compressed-tensors matches them.

A pattern comes from an untrusted file, so that only such are accepted as `re` matches in a time
that their number of repetitions bounds.
Source: `match_name` and `is_match` of compressed-tensors 0.20.
"""

import re
from dataclasses import dataclass

from nybble.frontend.checkpoint.errors import quoted
from nybble.frontend.checkpoint.fields import Fields

MAX_TARGETS = 4096
MAX_PATTERN = 256
MAX_REPEATS = 3
_PREFIX = "re:"
_NESTED = re.compile(r"\)[*+?{]|\(\?(?!:)|\\[1-9]")
_REPEAT = re.compile(r"(?<!\\)[*+{]")


@dataclass(frozen=True)
class Targets:
    """Names, patterns and classes of layers."""

    names: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @staticmethod
    def read(fields: Fields, key: str) -> "Targets":
        """The list at `key`; empty when absent."""
        listed = names_of(fields, key)
        plain = frozenset(item for item in listed if not item.startswith(_PREFIX))
        patterns = [item.removeprefix(_PREFIX) for item in listed if item.startswith(_PREFIX)]
        return Targets(plain, tuple(_pattern(fields, key, text) for text in patterns))

    def rank(self, layer: str) -> int | None:
        """How closely a layer is meant: 0 by name, 1 by a pattern, 2 by its class; None if not."""
        if layer in self.names:
            return 0
        if any(pattern.match(layer) for pattern in self.patterns):
            return 1
        return 2 if _class(layer) in self.names else None


def names_of(fields: Fields, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The list of strings at `key`, or what it is when absent."""
    listed = fields.get(key)
    if listed is None:
        return default
    if not isinstance(listed, list) or len(listed) > MAX_TARGETS:
        raise fields.fail(key, f"a list of at most {MAX_TARGETS} strings")
    if any(not isinstance(item, str) or not item for item in listed):
        raise fields.fail(key, "a list of strings that are not empty")
    return tuple(listed)


def _class(layer: str) -> str:
    return "Embedding" if layer.endswith("embed_tokens") else "Linear"


def _pattern(fields: Fields, key: str, text: str) -> re.Pattern[str]:
    simple = len(text) <= MAX_PATTERN and not _NESTED.search(text)
    if simple and len(_REPEAT.findall(text)) <= MAX_REPEATS:
        try:
            return re.compile(text)
        except (re.error, OverflowError, RecursionError):
            pass
    accepted = (
        f"regular expressions of at most {MAX_PATTERN} characters and {MAX_REPEATS} repetitions,"
        f" none of a group, without lookaround; not {quoted(text)}"
    )
    raise fields.fail(key, accepted)
