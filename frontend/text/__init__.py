"""Tokenizers and chat templates, from a checkpoint or from a compiled artifact."""

from nybble.frontend.checkpoint import Checkpoint
from nybble.frontend.checkpoint.metadata import Metadata
from nybble.frontend.text.errors import TextError
from nybble.frontend.text.folder_tokenizer import read_tokenizer
from nybble.frontend.text.gguf_tokenizer import build_backend
from nybble.frontend.text.stream import Detokenizer
from nybble.frontend.text.tokenizer import Tokenizer


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer that comes with `checkpoint`; CheckpointError when it is not usable."""
    if checkpoint.metadata is None:
        return read_tokenizer(checkpoint.path, checkpoint.config["vocab_size"])
    return _from_metadata(checkpoint.metadata, checkpoint.config["vocab_size"])


def _from_metadata(metadata: Metadata, vocab_size: int) -> Tokenizer:
    backend, vocabulary = build_backend(metadata)
    ids = {"bos_token": vocabulary.bos_id, "eos_token": next(iter(vocabulary.eos_ids), None)}
    special = {name: vocabulary.tokens[one] for name, one in ids.items() if one is not None}
    key = "tokenizer.chat_template"
    template = metadata.text(key) if key in metadata.pairs else None
    return Tokenizer(backend, vocab_size, vocabulary.bos_id, vocabulary.eos_ids, special, template)


__all__ = ["Detokenizer", "TextError", "Tokenizer", "read_tokenizer", "tokenizer_of"]
