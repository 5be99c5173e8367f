"""How each family of byte-level vocabularies splits text before merging, as data.

A GGUF file names its family in `tokenizer.ggml.pre`; a vocabulary used with the wrong split gives
other tokens than it was trained on. Sources: the tokenizer.json of each family's published model;
the same table in llama.cpp, src/llama-vocab.cpp.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_TAIL}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_TAIL}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """One way to split text.

    `pattern`: a split that replaces GPT-2's; `digits`: each digit stands alone first;
    `whole_words`: a piece that is itself a token is not merged from its parts; `compose`: text is
    put in Unicode NFC; `add_bos`: the default where a file does not say.
    """

    pattern: str | None = None
    digits: bool = False
    whole_words: bool = False
    compose: bool = False
    add_bos: bool = False

    def splitter(self) -> PreTokenizer:
        """The pre-tokenizer: pieces spelled in the byte-level alphabet."""
        if self.pattern is not None:
            return Sequence(
                [
                    Split(Regex(self.pattern), behavior="isolated"),
                    ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        gpt2 = ByteLevel(add_prefix_space=False, use_regex=True)
        return Sequence([Digits(individual_digits=True), gpt2]) if self.digits else gpt2


_GPT2 = Family()
_DIGITS = Family(digits=True)
_LLAMA = Family(_LLAMA3, whole_words=True, add_bos=True)
_QWEN = Family(_QWEN2, compose=True)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "default": _GPT2,
        "gpt-2": _GPT2,
        "smollm": _DIGITS,
        "starcoder": _DIGITS,
        "llama3": _LLAMA,
        "llama-v3": _LLAMA,
        "llama-bpe": _LLAMA,
        "qwen2": _QWEN,
        "deepseek-r1-qwen": _QWEN,
        "tekken": Family(_TEKKEN, whole_words=True, add_bos=True),
    }
)
