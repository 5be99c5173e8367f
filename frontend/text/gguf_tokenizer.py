"""A tokenizer built from a GGUF file's metadata: byte-level BPE or SentencePiece-style BPE."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from nybble.frontend.checkpoint.errors import CheckpointError, quoted
from nybble.frontend.checkpoint.metadata import Metadata
from nybble.frontend.text.pretokenizers import FAMILIES, Family
from nybble.frontend.text.vocabulary import PREFIX, Vocabulary, check_length, read_vocabulary

MAX_SPLITS = 1 << 22
MAX_DERIVED_MERGES = 1 << 20  # Gemma 3, the largest known: 0.5 M
_SPACE = "\u2581"


def build_backend(metadata: Metadata) -> tuple[Tokenizer, Vocabulary]:
    """The tokenizer that `metadata` describes, and the vocabulary it was built from."""
    vocabulary = read_vocabulary(metadata)
    key = f"{PREFIX}model"
    kind = metadata.text(key)
    if kind == "gpt2":
        backend, add_bos = _byte_level(vocabulary)
    elif kind == "llama":
        backend, add_bos = _sentencepiece(vocabulary), True
    else:
        raise metadata.fail(key, "one of gpt2, llama is needed")
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in vocabulary.control()]
    )
    if backend.get_vocab_size(with_added_tokens=True) != len(vocabulary.tokens):
        raise CheckpointError(metadata.path, "special tokens are not all part of the vocabulary")
    _add_bos(backend, vocabulary, metadata.flag(f"{PREFIX}add_bos_token", add_bos))
    return backend, vocabulary


def _add_bos(backend: Tokenizer, vocabulary: Vocabulary, wanted: bool) -> None:
    if not wanted or vocabulary.bos_id is None:
        return
    # The name in the template is ours: the token's own text may hold the template's syntax.
    backend.post_processor = TemplateProcessing(
        single=["bos", "$A"], pair=None, special_tokens=[("bos", vocabulary.bos_id)]
    )


def _byte_level(vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    metadata = vocabulary.metadata
    family = _family(metadata)
    pairs = vocabulary.pairs()
    if pairs is None:
        raise metadata.fail(f"{PREFIX}merges", "an array of strings is needed")
    model = _model(metadata, vocabulary.ids, pairs, ignore_merges=family.whole_words)
    backend = Tokenizer(model)
    if family.compose:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = family.splitter()
    backend.decoder = decoders.ByteLevel()
    _add_user_defined(backend, vocabulary.user_defined())
    return backend, family.add_bos


def _family(metadata: Metadata) -> Family:
    key = f"{PREFIX}pre"
    name = metadata.text(key) if key in metadata.pairs else "default"
    if name not in FAMILIES:
        raise metadata.fail(key, f"one of {', '.join(FAMILIES)} is supported")
    return FAMILIES[name]


def _sentencepiece(vocabulary: Vocabulary) -> Tokenizer:
    """BPE over text with spaces written as U+2581 and unknown characters as byte tokens.

    Gemma files differ: no space is put before the text, runs of spaces are ordinary tokens that the
    file spells with real spaces, and merges go by id, not by score.
    """
    metadata = vocabulary.metadata
    gemma = metadata.text("general.architecture").startswith("gemma")
    ids = {_respelled(token): index for token, index in vocabulary.ids.items()}
    pairs = vocabulary.pairs()
    if pairs is None:
        by_id = -np.arange(len(ids), dtype=np.float32)
        pairs = _derived_pairs(metadata, ids, by_id if gemma else _scores(metadata, len(ids)))
    unknown = metadata.integer(f"{PREFIX}unknown_token_id", 0)
    if not 0 <= unknown < len(ids):
        raise metadata.fail(f"{PREFIX}unknown_token_id", f"an id up to {len(ids) - 1} is needed")
    options = {"unk_token": vocabulary.tokens[unknown], "fuse_unk": True, "byte_fallback": True}
    backend = Tokenizer(_model(metadata, ids, pairs, **options))
    prefix = metadata.flag(f"{PREFIX}add_space_prefix", not gemma)
    spaces = normalizers.Replace(" ", _SPACE)
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    )
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    _add_user_defined(backend, [token for token in vocabulary.user_defined() if token in ids])
    return backend


def _respelled(token: str) -> str:
    return token.replace(" ", _SPACE) if token.isspace() else token


def _scores(metadata: Metadata, count: int) -> NDArray[np.float32]:
    scores = metadata.floats(f"{PREFIX}scores")
    check_length(metadata, "scores", len(scores), count)
    return scores


def _derived_pairs(
    metadata: Metadata, ids: dict[str, int], scores: NDArray[np.float32]
) -> list[tuple[str, str]]:
    """Every split of a token in two tokens, by falling score: the order of SentencePiece."""
    splits = sum(map(len, ids))
    if splits > MAX_SPLITS:
        message = f"tokens have {splits} characters; at most {MAX_SPLITS} are accepted"
        raise CheckpointError(metadata.path, message)
    names = {index: token for token, index in ids.items()}
    found: list[tuple[int, int, int]] = []
    for token, index in ids.items():
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                found.append((index, left, right))
        if len(found) > MAX_DERIVED_MERGES:
            message = f"tokens imply more than the {MAX_DERIVED_MERGES} merges that are accepted"
            raise CheckpointError(metadata.path, message)
    ranks = (-scores).tolist()
    found.sort(key=lambda split: (ranks[split[0]], *split[1:]))
    return [(names[left], names[right]) for _, left, right in found]


def _model(
    metadata: Metadata, ids: dict[str, int], pairs: list[tuple[str, str]], **options: Any
) -> BPE:
    try:
        return BPE(vocab=ids, merges=pairs, **options)
    except Exception as error:  # noqa: BLE001 - all that tokenizers raises
        raise CheckpointError(metadata.path, f"vocabulary: {quoted(str(error))}") from None


def _add_user_defined(backend: Tokenizer, tokens: list[str]) -> None:
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
