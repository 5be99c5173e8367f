"""A tokenizer folder: Hugging Face's variants, and files that are not usable."""

import json

import pytest

from nybble.frontend.checkpoint import CheckpointError
from nybble.frontend.text import TextError, read_tokenizer


@pytest.fixture
def folder(tokenizer, tmp_path):
    for name, data in tokenizer().to_files().items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def describe(folder, name, **entries):
    (folder / name).write_text(json.dumps(entries))


def test_special_tokens_as_objects(folder):
    describe(folder, "tokenizer_config.json", eos_token={"content": "<|end|>", "lstrip": False})
    (folder / "generation_config.json").unlink()
    read = read_tokenizer(folder)
    assert read.special == {"eos_token": "<|end|>"}
    assert read.eos_ids == (18,)


def test_end_of_text_from_config_json(folder):
    (folder / "generation_config.json").unlink()
    describe(folder, "config.json", eos_token_id=[3, 4], bos_token_id=5)
    read = read_tokenizer(folder)
    assert (read.bos_id, read.eos_ids) == (5, (3, 4))


def test_only_tokenizer_json(folder):
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    read = read_tokenizer(folder)
    assert (read.bos_id, read.eos_ids, read.chat_template) == (None, (), None)
    assert read.decode(read.encode("hello")) == "hello"


def test_chat_templates(folder):
    named = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    describe(folder, "tokenizer_config.json", chat_template=named)
    assert read_tokenizer(folder).chat_template == "d"
    (folder / "chat_template.jinja").write_text("file")
    assert read_tokenizer(folder).chat_template == "file"


def test_ids_are_those_of_the_model(folder):
    """Ids outside the model's vocabulary would index past its embedding."""
    small = read_tokenizer(folder, vocab_size=19)
    assert small.encode("hello") == [15]
    with pytest.raises(TextError, match="token 1 has id 19; ids are 0 to 18"):
        small.encode("hello<think>")
    padded = read_tokenizer(folder, vocab_size=64)
    assert padded.decode([12, 63]) == "he"


def test_template_with_an_unknown_token(folder):
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "bos", "type_id": 0}}],
        "pair": [],
        "special_tokens": {},
    }
    for processor in (template, {"type": "Sequence", "processors": [template]}):
        path.write_text(json.dumps({**described, "post_processor": processor}))
        with pytest.raises(CheckpointError, match="names the unknown token 'bos'"):
            read_tokenizer(folder)


BAD = {
    "no file": ("tokenizer.json", None, "cannot be read: No such file"),
    "empty": ("tokenizer.json", b"", "is empty"),
    "not JSON": ("tokenizer.json", b"{", "is not a tokenizer"),
    "not a tokenizer": ("tokenizer.json", b"{}", "is not a tokenizer"),
    "binary": ("tokenizer.json", b"\xff\xfe", "is not UTF-8"),
    "deep": ("tokenizer.json", b"[" * 100000, "is not a tokenizer"),
    "bad regex": (
        "tokenizer.json",
        b'{"model":{"type":"BPE","vocab":{},"merges":[]},'
        b'"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},'
        b'"behavior":"Isolated","invert":false}}',
        "is not a tokenizer",
    ),
    "config": ("tokenizer_config.json", b"[]", "expected an object"),
    "vocabulary": (
        "tokenizer_config.json",
        b'{"vocab_size": 0}',
        "needed: an integer from 1 to 16777216",
    ),
    "ids": ("generation_config.json", b'{"eos_token_id": [99]}', "token ids from 0 to 19"),
    "id of text": ("generation_config.json", b'{"eos_token_id": "x"}', "token ids from 0 to 19"),
}


@pytest.mark.parametrize("case", BAD)
def test_rejected(case, folder, bounded):
    name, data, message = BAD[case]
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data)
    bounded()
    with pytest.raises(CheckpointError) as caught:
        read_tokenizer(folder)
    assert message in str(caught.value)
    assert name in str(caught.value)
