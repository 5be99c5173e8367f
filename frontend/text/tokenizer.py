"""Text to token ids and back, for one model, with its chat template."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tokenizers import Tokenizer as Backend

from nybble.frontend.text.chat import Message, render_chat
from nybble.frontend.text.errors import TextError
from nybble.frontend.text.stream import Detokenizer

MAX_TEXT_BYTES = 16 << 20


@dataclass(frozen=True)
class Tokenizer:
    """A model's tokenizer. `eos_ids` end an answer; `bos_id` starts a text, for models that use it.

    `vocab_size` is the model's: ids are below it, also where the tokenizer has fewer or more.
    `special` holds the texts that chat templates refer to by name: bos_token, eos_token, ..
    """

    backend: Backend
    vocab_size: int
    bos_id: int | None
    eos_ids: tuple[int, ...]
    special: Mapping[str, str]
    chat_template: str | None = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`; `add_special_tokens` adds what the model starts every text with.

        Special tokens written out in the text become their ids.
        """
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            at = f"character {error.start} is {text[error.start]!a}"
            raise TextError(f"{at}, a lone surrogate; Unicode text is needed") from None
        if size > MAX_TEXT_BYTES:
            raise TextError(f"text has {size} bytes; at most {MAX_TEXT_BYTES} are accepted")
        ids = self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        self._check(ids)
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        self._check(ids)
        return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def _check(self, ids: Sequence[int]) -> None:
        for index, token in enumerate(ids):
            if not 0 <= token < self.vocab_size:
                raise TextError(f"token {index} has id {token}; ids are 0 to {self.vocab_size - 1}")

    def stream(self, skip_special_tokens: bool = True) -> Detokenizer:
        """A decoder for tokens as they come."""
        return Detokenizer(lambda ids: self.decode(ids, skip_special_tokens))

    def chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        now: datetime | None = None,
    ) -> str:
        """The prompt for a conversation; encode it with add_special_tokens=False."""
        if self.chat_template is None:
            raise TextError("the model has no chat template; give a plain prompt")
        variables = {**self.special, "add_generation_prompt": add_generation_prompt}
        return render_chat(self.chat_template, messages, variables, now)

    def to_files(self) -> dict[str, bytes]:
        """File name -> contents in Hugging Face's form, for `read_tokenizer` to read back."""
        described = {
            **self.special,
            "chat_template": self.chat_template,
            "vocab_size": self.vocab_size,
        }
        generation = {"bos_token_id": self.bos_id, "eos_token_id": list(self.eos_ids)}
        return {
            "tokenizer.json": self.backend.to_str().encode(),
            "tokenizer_config.json": json.dumps(described).encode(),
            "generation_config.json": json.dumps(generation).encode(),
        }
