"""The packaged model's tokenizer: stored ids, and the ids of other implementations."""

import pytest

from nybble.frontend.text import read_tokenizer

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  leading and trailing   ",
    "tabs\t\tand\n\n newlines \r\n",
    "na\u00efve caf\u00e9 \u2014 \u201cquotes\u201d \u2026",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea",
    "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467 emoji",
    "def f(x):\n    return x**2  # items\n",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "a<|endoftext|>b <|im_end|> c",
    "don't you'll WE'RE it's",
    "a\u00a0b\u3000c\u2028d",
    "e\u0301 \ufb01 \u2126",
    "\x00\x01\x7f",
]
DIGITS = [
    "x = 12345 + 3.14",
    "1 000 000",
    "a  1",
    "   42",
    "\n\n  7\t8",
    "\u0661\u0662\u0663 \u2463 \u00bd",
    "v1.2.3-rc4",
]
GOLDEN = {
    "Hello, world!": [19556, 28, 905, 17],
    "x = 12345 + 3.14": [104, 446, 216, 33, 34, 35, 36, 37, 1232, 216, 35, 30, 33, 36],
    "   42": [333, 36, 34],
    "a  1": [81, 256, 33],
    "<|im_start|>user\nhi<|im_end|>": [1, 4093, 198, 6004, 2],
    "na\u00efve \U0001f642": [3546, 46494, 47526],
}


@pytest.mark.parametrize("text", GOLDEN)
def test_stored_ids(smollm2, text):
    assert smollm2.encode(text) == GOLDEN[text]


@pytest.mark.parametrize("text", TEXTS + DIGITS)
def test_round_trip(smollm2, text):
    assert smollm2.decode(smollm2.encode(text)) == text


def test_special_ids(smollm2):
    assert smollm2.vocab_size == 49152
    assert smollm2.bos_id == 1
    assert smollm2.eos_ids == (2, 0)
    assert smollm2.special == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert smollm2.decode([1, 4093, 2], skip_special_tokens=True) == "user"


@pytest.fixture(scope="module")
def transformers_tokenizer(smollm2_path):
    transformers = pytest.importorskip("transformers", reason="oracle: pip install nybble[torch]")
    return transformers.AutoTokenizer.from_pretrained(
        str(smollm2_path.parent), gguf_file=smollm2_path.name
    )


@pytest.mark.parametrize("text", TEXTS)
def test_ids_of_transformers(smollm2, transformers_tokenizer, text):
    expected = transformers_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert smollm2.encode(text) == expected


@pytest.mark.parametrize("text", DIGITS)
def test_ids_of_transformers_with_digits_apart(smollm2, transformers_tokenizer, text):
    """transformers 5.23 overlooks the split "smollm" in a GGUF file: put it in place."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    backend = transformers_tokenizer.backend_tokenizer
    before = backend.pre_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(False)])
    expected = transformers_tokenizer(text, add_special_tokens=False)["input_ids"]
    backend.pre_tokenizer = before
    assert smollm2.encode(text) == expected


def test_ids_of_llama_cpp(smollm2, smollm2_path, llama_cpp_ids):
    texts = TEXTS + DIGITS
    expected = llama_cpp_ids(smollm2_path, texts, add_bos=False)
    assert dict(zip(texts, map(smollm2.encode, texts), strict=True)) == expected


def test_chat(smollm2):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert smollm2.chat(messages) == (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert smollm2.chat(messages, add_generation_prompt=False).endswith("France?<|im_end|>\n")


def test_artifact(smollm2, tmp_path):
    for name, data in smollm2.to_files().items():
        (tmp_path / name).write_bytes(data)
    read = read_tokenizer(tmp_path)
    assert (read.bos_id, read.eos_ids, read.special) == (1, (2, 0), dict(smollm2.special))
    assert read.chat_template == smollm2.chat_template
    for text in TEXTS + DIGITS:
        assert read.encode(text) == smollm2.encode(text)
        assert read.decode(read.encode(text)) == text
