"""A tokenizer read from tokenizer.json and its companions in a folder."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from nybble.frontend.checkpoint.config import MAX_VOCABULARY
from nybble.frontend.checkpoint.errors import CheckpointError, quoted
from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.files import read_json_object, read_text
from nybble.frontend.text.tokenizer import Tokenizer

MAX_TOKENIZER_BYTES = 64 << 20
_MAX_SMALL_BYTES = 16 << 20
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer in `folder`: a Hugging Face model's, or what `Tokenizer.to_files` gave.

    `vocab_size` is the model's, by default what the folder states or the tokenizer's own.
    """
    backend = _backend(folder / "tokenizer.json")
    described = _optional(folder / "tokenizer_config.json")
    special = {key: text for key in _SPECIAL if (text := _token_text(described, key)) is not None}
    bound = vocab_size or _vocab_size(folder, described, backend)
    named = {
        key: backend.token_to_id(special[f"{key}_token"])
        for key in ("bos", "eos")
        if f"{key}_token" in special
    }
    bos, eos = _generation_ids(folder, bound)
    return Tokenizer(
        backend,
        bound,
        bos if bos is not None else named.get("bos"),
        eos or tuple(one for one in [named.get("eos")] if one is not None),
        special,
        _chat_template(folder, described),
    )


def _backend(path: Path) -> Backend:
    text = read_text(path, MAX_TOKENIZER_BYTES)
    try:
        backend = Backend.from_str(text)
    except Exception as error:  # noqa: BLE001 - all that tokenizers raises
        raise CheckpointError(path, f"is not a tokenizer: {quoted(str(error))}") from None
    if backend.post_processor is not None:
        _check_templates(path, json.loads(backend.post_processor.__getstate__()))
    return backend


def _check_templates(path: Path, processor: Any) -> None:
    """Refuse a template that names a token it does not define: the library would panic on it."""
    for part in processor.get("processors", []):
        _check_templates(path, part)
    defined = processor.get("special_tokens", {})
    for piece in processor.get("single", []):
        name = piece.get("SpecialToken", {}).get("id")
        if name is not None and name not in defined:
            raise CheckpointError(path, f"post_processor names the unknown token {quoted(name)}")


def _vocab_size(folder: Path, described: dict[str, Any], backend: Backend) -> int:
    own = backend.get_vocab_size(with_added_tokens=True)
    stated = Fields(folder / "tokenizer_config.json", described, {"vocab_size": own})
    return stated.integer("vocab_size", 1, MAX_VOCABULARY)


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path, _MAX_SMALL_BYTES) if path.exists() else {}


def _token_text(described: dict[str, Any], key: str) -> str | None:
    """A token's text, given as a string or as the dictionary form of an AddedToken."""
    value = described.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _generation_ids(folder: Path, bound: int) -> tuple[int | None, tuple[int, ...]]:
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        fields = Fields(path, _optional(path), {})
        bos, eos = fields.ids("bos_token_id", bound), fields.ids("eos_token_id", bound)
        if eos is not None:
            first = bos[0] if isinstance(bos, list) else bos
            return first, tuple(eos) if isinstance(eos, list) else (eos,)
    return None, ()


def _chat_template(folder: Path, described: dict[str, Any]) -> str | None:
    separate = folder / "chat_template.jinja"
    if separate.exists():
        return read_text(separate, _MAX_SMALL_BYTES)
    value = described.get("chat_template")
    if isinstance(value, list):
        named = {one.get("name"): one.get("template") for one in value if isinstance(one, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
