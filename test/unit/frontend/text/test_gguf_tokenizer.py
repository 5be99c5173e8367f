"""Tokenizers built from metadata: families, special tokens, and metadata that is not usable."""

import numpy as np
import pytest
from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, trainers

from nybble.frontend.checkpoint import CheckpointError
from nybble.frontend.checkpoint.gguf import read_gguf
from nybble.frontend.checkpoint.metadata import Metadata
from nybble.frontend.text import TextError
from nybble.frontend.text.gguf_tokenizer import build_backend
from nybble.frontend.text.pretokenizers import FAMILIES


def pieces(tokenizer, text):
    return [tokenizer.backend.id_to_token(one) for one in tokenizer.encode(text)]


def test_merges(tokenizer):
    assert pieces(tokenizer(), "hello word") == ["hello", "\u0120w", "o", "r", "d"]
    assert pieces(tokenizer(), "12") == ["12"]
    assert pieces(tokenizer(pre="smollm"), "12") == ["1", "2"]


def test_special_and_user_defined_tokens(tokenizer):
    made = tokenizer()
    assert pieces(made, "he<|end|>he<think>ll") == ["he", "<|end|>", "he", "<think>", "ll"]
    ids = made.encode("he<|end|><think>")
    assert made.decode(ids) == "he<|end|><think>"
    assert made.decode(ids, skip_special_tokens=True) == "he<think>"
    assert made.eos_ids == (18,)


def test_start_of_text(tokenizer):
    entries = {"bos_token_id": 18, "add_bos_token": True}
    assert tokenizer(**entries).encode("he") == [18, 12]
    assert tokenizer(**entries).encode("he", add_special_tokens=False) == [12]
    assert tokenizer(bos_token_id=18).encode("he") == [12]
    assert tokenizer(bos_token_id=18, pre="llama-bpe").encode("he") == [18, 12]


def test_whole_words(tokenizer):
    """Llama 3 takes a piece that is a token, even where merges do not lead to it."""
    entries = {"merges": ("h e",), "add_bos_token": False}
    assert pieces(tokenizer(pre="llama-bpe", **entries), "hello") == ["hello"]
    assert pieces(tokenizer(pre="gpt-2", **entries), "hello") == ["he", "l", "l", "o"]


def test_every_family_keeps_the_text(metadata):
    text = "I'll pay  12345!!\r\n\n  na\u00efve \u65e5\u672c caf\u00e9 \tx=1;HTMLParser don'T"
    for name, family in FAMILIES.items():
        found = family.splitter().pre_tokenize_str(text)
        spans = [span for _, span in found]
        assert spans[0][0] == 0, name
        assert spans[-1][1] == len(text), name


def test_split_of_numbers_and_contractions():
    def split(name, text):
        return [piece for piece, _ in FAMILIES[name].splitter().pre_tokenize_str(text)]

    assert split("gpt-2", "I'LL 12345") == [
        "I",
        "'",
        "LL",
        "\u012012345",
    ]
    assert split("smollm", "a  12") == ["a", "\u0120\u0120", "1", "2"]
    assert split("llama-bpe", "I'LL 12345") == ["I", "'LL", "\u0120", "123", "45"]
    assert split("qwen2", "I'll 123") == ["I", "'ll", "\u0120", "1", "2", "3"]
    assert split("tekken", "HTMLParser 12") == ["HTMLParser", "\u0120", "1", "2"]
    assert FAMILIES["qwen2"].compose


def test_splits_are_those_of_transformers():
    mapping = pytest.importorskip(
        "transformers.integrations.gguf.gguf_tokenizer_mapping",
        reason="oracle: pip install nybble[torch]",
    )
    for name, pattern in mapping.GGUF_PRE_TOKENIZER_SPLITS.items():
        if name in FAMILIES:
            assert FAMILIES[name].pattern == pattern, name


BAD = {
    "no tokens": ({"tokens": None}, "'tokenizer.ggml.tokens' is missing: an array of strings"),
    "empty": ({"tokens": ()}, "holds 0 tokens"),
    "twice": ({"tokens": ("a", "b", "a")}, "holds 'a' twice"),
    "long token": ({"tokens": ("a" * 2000,)}, "has 2000 characters; 1024 are accepted"),
    "kinds": ({"token_type": np.ones(3, np.int32)}, "token_type has 3 entries for 20 tokens"),
    "kinds as floats": ({"token_type": np.ones(20, np.float32)}, "array of integers"),
    "many special": (
        {
            "tokens": tuple(map(str, range(40000))),
            "token_type": np.full(40000, 3, np.int32),
            "merges": (),
        },
        "40000 tokens are of type 3 or 4; at most 32768",
    ),
    "end of text": ({"eos_token_id": 20}, "an id from 0 to 19"),
    "start of text": ({"bos_token_id": -1}, "an id from 0 to 19"),
    "no merges": ({"merges": None}, "'tokenizer.ggml.merges' is missing"),
    "merge of one": ({"merges": ("he",)}, "merge 0 of tokenizer.ggml.merges, 'he', is not of two"),
    "merge of three": ({"merges": ("h e l",)}, "is not of two tokens"),
    "merge of nothing": ({"merges": ("h e", "z q")}, "merge 1 of"),
    "merge into nothing": ({"merges": ("h o",)}, "that form a token"),
    "model": ({"model": "bert"}, "one of gpt2, llama is needed"),
    "family": ({"pre": "odd"}, "one of default, gpt-2, smollm"),
    "flag": ({"add_bos_token": 1}, "a bool is needed"),
    "no scores": ({"model": "llama", "merges": None}, "'tokenizer.ggml.scores' is missing"),
    "scores": (
        {"model": "llama", "merges": None, "scores": np.ones(3, np.float32)},
        "scores has 3 entries for 20 tokens",
    ),
    "unknown": ({"model": "llama", "unknown_token_id": 99}, "an id up to 19"),
}


@pytest.mark.parametrize("case", BAD)
def test_rejected(case, metadata, tokenizer, bounded):
    entries, message = BAD[case]
    described = metadata(**entries)
    bounded()
    with pytest.raises(CheckpointError) as caught:
        tokenizer(described)
    assert message in str(caught.value)


def test_special_tokens_outside_the_vocabulary(metadata, tokenizer):
    """A control token of spaces is respelled in the vocabulary, and would come in a second time."""
    described = metadata(
        model="llama",
        tokens=("a", "  ", "b"),
        token_type=np.array([1, 3, 1], np.int32),
        merges=None,
        scores=np.zeros(3, np.float32),
        eos_token_id=0,
    )
    with pytest.raises(CheckpointError, match="not all part of the vocabulary"):
        tokenizer(described)


def test_long_vocabulary_without_merges(metadata, tokenizer, bounded):
    tokens = tuple(f"{index}".rjust(1000, "x") for index in range(9000))
    described = metadata(
        model="llama",
        tokens=tokens,
        token_type=None,
        merges=None,
        eos_token_id=0,
        scores=np.zeros(9000, np.float32),
    )
    bounded()
    with pytest.raises(CheckpointError, match="9000000 characters; at most 4194304"):
        tokenizer(described)


def test_vocabulary_with_too_many_merges(metadata, tokenizer, bounded):
    count = 1 << 18
    described = metadata(
        model="llama",
        tokens=tuple(map(str, range(count))),
        token_type=None,
        merges=None,
        eos_token_id=0,
        scores=np.zeros(count, np.float32),
    )
    bounded()
    with pytest.raises(CheckpointError, match="tokens imply more than the 1048576 merges"):
        tokenizer(described)


def test_texts_and_ids_that_are_not_usable(tokenizer):
    made = tokenizer()
    with pytest.raises(TextError, match="lone surrogate"):
        made.encode("a\ud800")
    with pytest.raises(TextError, match="at most 16777216 are accepted"):
        made.encode("a" * ((16 << 20) + 1))  # CVE-2025-52566: a text longer than the sizes used
    for ids in ([20], [-1], [1 << 40]):
        with pytest.raises(TextError, match="ids are 0 to 19"):
            made.decode(ids)


SENTENCES = [
    "The quick brown fox jumps over the lazy dog. ",
    "Pack my box with five dozen liquor jugs, and then some more boxes. ",
    "A journey of a thousand miles begins with a single step.",
]


@pytest.fixture(scope="module")
def sentencepiece_file(tmp_path_factory):
    """A small SentencePiece-style vocabulary, in a file that llama.cpp reads."""
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=150))
    learned = sorted(backend.get_vocab(), key=backend.get_vocab().__getitem__)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(learned)
    path = tmp_path_factory.mktemp("spm") / "spm.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(index) for index in range(len(learned))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SPM_TEXTS = [
    "The quick fox",
    " leading",
    "two  spaces",
    "boxes</s>boxes",
    "na\u00efve \U0001f642",
    "Pack\nmy 12 boxes, then some more!",
    "",
]


def test_sentencepiece_ids_of_llama_cpp(sentencepiece_file, llama_cpp_ids, tokenizer):
    made = tokenizer(read_gguf(sentencepiece_file).metadata)
    expected = llama_cpp_ids(sentencepiece_file, SPM_TEXTS, add_bos=True)
    assert dict(zip(SPM_TEXTS, map(made.encode, SPM_TEXTS), strict=True)) == expected


@pytest.mark.parametrize("text", [text for text in SPM_TEXTS if "</s>" not in text])
def test_sentencepiece_round_trip(sentencepiece_file, tokenizer, text):
    made = tokenizer(read_gguf(sentencepiece_file).metadata)
    assert made.decode(made.encode(text, add_special_tokens=False)) in (text, text.lstrip(" "))


def test_sentencepiece_stream_holds_back_partial_characters(sentencepiece_file, tokenizer):
    """Each byte of an unfinished character decodes to its own U+FFFD: up to three are held."""
    made = tokenizer(read_gguf(sentencepiece_file).metadata)
    text = "na\u00efve \U0001f642\u65e5 boxes"
    decoder = made.stream()
    found = [decoder.push(one) for one in made.encode(text)]
    assert "".join(found) + decoder.finish() == text
    assert not any("\ufffd" in piece for piece in found)


def gemma_metadata(metadata):
    tokens = ("<pad>", "<eos>", "<bos>", "  ", "h", "i", "\u2581", "hi", "\u2581hi", "    ")
    tokens += tuple(f"<0x{byte:02X}>" for byte in range(256))
    kinds = np.ones(len(tokens), np.int32)
    kinds[:3], kinds[[3, 9]] = 3, 4
    described = metadata(
        model="llama",
        pre=None,
        tokens=tokens,
        token_type=kinds,
        scores=-np.arange(len(tokens), dtype=np.float32),
        merges=None,
        eos_token_id=1,
        bos_token_id=2,
        unknown_token_id=0,
    )
    return Metadata("m.gguf", {**described.pairs, "general.architecture": "gemma3"})


def test_gemma(metadata, tokenizer):
    made = tokenizer(gemma_metadata(metadata))
    assert pieces(made, "hi hi") == ["<bos>", "hi", "\u2581hi"]
    assert pieces(made, "hi   hi") == ["<bos>", "hi", "\u2581\u2581", "\u2581hi"]
    assert (
        made.decode(made.encode("hi    hi \u00e9"), skip_special_tokens=True) == "hi    hi \u00e9"
    )


@pytest.mark.parametrize("text", ["hi hi", " hi", "hi    hi", "hi     hi", "\u00e9 hi", "hi  "])
def test_gemma_ids_of_transformers(metadata, tokenizer, text):
    mapping = pytest.importorskip(
        "transformers.integrations.gguf.gguf_tokenizer_mapping",
        reason="oracle: pip install nybble[torch]",
    )
    pairs = gemma_metadata(metadata).pairs
    described = {
        "tokenizer_type": "llama",
        **{key: list(pairs[f"tokenizer.ggml.{key}"]) for key in ("tokens", "scores", "token_type")},
    }
    expected, _ = mapping.convert_gguf_tokenizer("gemma3", described)
    ids = tokenizer(gemma_metadata(metadata)).encode(text, add_special_tokens=False)
    assert ids == expected.encode(text, add_special_tokens=False).ids


def test_build_gives_the_vocabulary(metadata):
    backend, vocabulary = build_backend(metadata())
    assert backend.get_vocab_size() == len(vocabulary.tokens) == 20
