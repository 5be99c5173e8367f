"""The vocabulary in a GGUF file's metadata, with lengths, types and ids checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nybble.frontend.checkpoint.errors import CheckpointError, quoted
from nybble.frontend.checkpoint.metadata import Metadata

PREFIX = "tokenizer.ggml."
MAX_TOKENS = 1 << 19
MAX_TOKEN_CHARACTERS = 1024
MAX_ADDED_TOKENS = 1 << 15

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4

# End-of-turn spellings of published chat models; a control token with such a name ends an answer
# even where the file names another one, as in llama.cpp.
_END_OF_TURN = frozenset(
    (
        "<|endoftext|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<end_of_turn>",
        "</s>",
    )
)


@dataclass(frozen=True)
class Vocabulary:
    """The `tokens` in order of id, their `kinds` (ggml's numbers), and the special ids."""

    metadata: Metadata
    tokens: tuple[str, ...]
    kinds: NDArray[np.int64]
    bos_id: int | None
    eos_ids: tuple[int, ...]

    @property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {token: index for index, token in enumerate(self.tokens)}

    def control(self) -> list[str]:
        """Tokens that mark structure and are never text."""
        return self._of_kind(_CONTROL)

    def user_defined(self) -> list[str]:
        """Tokens that are text, but always matched whole."""
        return self._of_kind(_USER_DEFINED)

    def _of_kind(self, kind: int) -> list[str]:
        return [self.tokens[index] for index in np.flatnonzero(self.kinds == kind)]

    def pairs(self) -> list[tuple[str, str]] | None:
        """The merges that the file lists, best first, or None."""
        key = f"{PREFIX}merges"
        if key not in self.metadata.pairs:
            return None
        merges = [tuple(merge.split(" ")) for merge in self.metadata.strings(key)]
        known = self.ids
        for index, merge in enumerate(merges):
            if len(merge) != 2 or any(part not in known for part in (*merge, "".join(merge))):
                message = f"merge {index} of {key}, {quoted(' '.join(merge))}, is not of two tokens"
                raise CheckpointError(self.metadata.path, f"{message} that form a token")
        return [(left, right) for left, right in merges]


def read_vocabulary(metadata: Metadata) -> Vocabulary:
    """The vocabulary in `metadata`; CheckpointError names the entry that is not usable."""
    key = f"{PREFIX}tokens"
    tokens = metadata.strings(key)
    if not 1 <= len(tokens) <= MAX_TOKENS:
        message = f"metadata {key} holds {len(tokens)} tokens; 1 to {MAX_TOKENS} are accepted"
        raise CheckpointError(metadata.path, message)
    _check_tokens(metadata, tokens)
    kinds = np.full(len(tokens), _NORMAL)
    if f"{PREFIX}token_type" in metadata.pairs:
        kinds = metadata.integers(f"{PREFIX}token_type")
        check_length(metadata, "token_type", len(kinds), len(tokens))
    added = int(np.isin(kinds, (_CONTROL, _USER_DEFINED)).sum())
    if added > MAX_ADDED_TOKENS:
        message = f"{added} tokens are of type 3 or 4; at most {MAX_ADDED_TOKENS} are accepted"
        raise CheckpointError(metadata.path, message)
    eos = [_token_id(metadata, name, len(tokens)) for name in ("eos", "eot", "eom")]
    named = [
        int(index) for index in np.flatnonzero(kinds == _CONTROL) if tokens[index] in _END_OF_TURN
    ]
    ids = dict.fromkeys([one for one in eos if one is not None] + named)
    return Vocabulary(metadata, tokens, kinds, _token_id(metadata, "bos", len(tokens)), tuple(ids))


def check_length(metadata: Metadata, name: str, found: int, needed: int) -> None:
    """Raise unless the array `name` has one entry for each of the `needed` tokens."""
    if found != needed:
        message = f"metadata {PREFIX}{name} has {found} entries for {needed} tokens"
        raise CheckpointError(metadata.path, message)


def _check_tokens(metadata: Metadata, tokens: Sequence[str]) -> None:
    if len(set(tokens)) != len(tokens):
        seen: set[str] = set()
        twice = next(token for token in tokens if token in seen or seen.add(token))
        message = f"metadata {PREFIX}tokens holds {quoted(twice)} twice"
        raise CheckpointError(metadata.path, message)
    longest = max(tokens, key=len)
    if len(longest) > MAX_TOKEN_CHARACTERS:
        message = f"token {quoted(longest)} has {len(longest)} characters"
        raise CheckpointError(metadata.path, f"{message}; {MAX_TOKEN_CHARACTERS} are accepted")


def _token_id(metadata: Metadata, name: str, bound: int) -> int | None:
    key = f"{PREFIX}{name}_token_id"
    if key not in metadata.pairs:
        return None
    value = metadata.integer(key)
    if not 0 <= value < bound:
        raise metadata.fail(key, f"an id from 0 to {bound - 1} is needed")
    return value
