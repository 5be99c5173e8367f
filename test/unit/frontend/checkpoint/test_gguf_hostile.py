"""Hostile GGUF files: each gives a located CheckpointError, soon and in little memory.

The cases named after CVEs rebuild the kind of file that each report describes.
"""

import os
import struct
import tracemalloc

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from gguf.constants import GGUFValueType as ValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nybble.frontend.checkpoint import CheckpointError, open_checkpoint
from nybble.frontend.checkpoint.gguf import read_gguf

HUGE = (1 << 64) - 1


def with_pair(gguf, key, kind, data):
    return gguf(pairs=[(key, kind, data)])


def with_array(gguf, kind, count, data=b""):
    return with_pair(gguf, "a", ValueType.ARRAY, struct.pack("<IQ", kind, count) + data)


def with_tensor(gguf, dims=(4,), **fields):
    file = gguf()
    file.add("w", np.zeros(4))
    for name, value in {"dims": dims, **fields}.items():
        setattr(file.tensors[0], name, value)
    return file


def overlapping(gguf):
    file = gguf().add("a", np.zeros(16)).add("b", np.zeros(16))
    file.tensors[1].offset = 32
    return file


def twice_the_tensor(gguf):
    return gguf().add("w", np.zeros(8)).add("w", np.zeros(8))


CASES = {
    "wrong magic": (lambda g: g(magic=b"GGML"), 0, "b'GGUF'"),
    "version 1": (lambda g: g(version=1), 4, "versions 2 and 3 are accepted"),
    "version 4": (lambda g: g(version=4), 4, "is GGUF version 4"),
    "big-endian": (lambda g: g(version=3 << 24), 4, "big-endian"),
    "huge tensor count": (lambda g: g(tensor_count=HUGE), 8, "at most 65536"),
    "tensor count past the end": (lambda g: g(tensor_count=1000), 8, "are left"),
    "huge pair count": (lambda g: g(pair_count=HUGE), 16, "at most 65536"),
    "pair count past the end": (lambda g: g(pair_count=9999), 16, "are left"),
    "empty key": (lambda g: with_pair(g, "", 4, b"\0" * 4), 24, "metadata key is empty"),
    "key of wrong text": (lambda g: with_pair(g, b"\xff\xfe", 4, b"\0" * 4), 32, "not UTF-8"),
    "key twice": (
        lambda g: g(pairs=[("k", 4, b"\0" * 4)] * 2),
        41,
        "metadata key 'k' appears twice",
    ),
    "unknown value type": (lambda g: with_pair(g, "k", 13, b"\0" * 8), 33, "0 to 12 are defined"),
    "bool of 2": (lambda g: with_pair(g, "k", 7, b"\2"), 37, "0 or 1 is accepted"),
    "string too long": (
        lambda g: with_pair(g, "k", 8, struct.pack("<Q", HUGE) + b"x"),
        37,
        "at most 33554432",
    ),
    "string past the end": (
        lambda g: with_pair(g, "k", 8, struct.pack("<Q", 5000) + b"x"),
        37,
        "are left",
    ),
    "string of wrong text": (
        lambda g: with_pair(g, "k", 8, struct.pack("<Q", 2) + b"a\xc3" + b"\0" * 32),
        46,
        "not UTF-8",
    ),
    "array of arrays": (
        lambda g: with_array(g, ValueType.ARRAY, 1, b"\0" * 32),
        37,
        "array of arrays",
    ),
    "array of an unknown type": (lambda g: with_array(g, 99, 1, b"\0" * 32), 37, "is 99"),
    "huge array": (lambda g: with_array(g, 4, HUGE), 41, "at most 67108864"),
    "array past the end": (lambda g: with_array(g, 10, 1 << 20), 41, "are left"),
    "string array past the end": (lambda g: with_array(g, 8, 1 << 20), 41, "are left"),
    "string in an array too long": (
        lambda g: with_array(g, 8, 1, struct.pack("<Q", HUGE)),
        49,
        "string 0 of metadata 'a' is 18446744073709551615 bytes long",
    ),
    "string in an array past the end": (
        lambda g: with_array(g, 8, 2, text_items(b"a" * 40) + struct.pack("<Q", 5000)),
        97,
        "string 1 of",
    ),
    "string in an array of wrong text": (
        lambda g: with_array(g, 8, 1, text_items(b"ab\xff")),
        59,
        "string 0 of metadata 'a' is not UTF-8",
    ),
    "alignment of 0": (lambda g: g().set("general.alignment", 0), None, "power of two"),
    "alignment of 3": (lambda g: g().set("general.alignment", 3), None, "power of two"),
    "huge alignment": (lambda g: g().set("general.alignment", 1 << 31), None, "is 2147483648"),
    "alignment of text": (lambda g: g().set("general.alignment", "x"), None, "an integer"),
    "tensor without a name": (lambda g: with_tensor(g, name=""), 24, "tensor name is empty"),
    "tensor name too long": (lambda g: with_tensor(g, name="n" * 300), 24, "at most 255"),
    "no dimensions": (lambda g: with_tensor(g, rank=0), 33, "0 dimensions; 1 to 4"),
    "5 dimensions": (lambda g: with_tensor(g, dims=(1,) * 5), 33, "5 dimensions; 1 to 4"),
    "dimension of 0": (lambda g: with_tensor(g, dims=(4, 0)), 33, "at least 1"),
    "unknown tensor type": (lambda g: with_tensor(g, kind=4), 45, "type of tensor 'w' is 4"),
    "huge tensor type": (lambda g: with_tensor(g, kind=1 << 31), 45, "known types"),
    "partial block": (
        lambda g: with_tensor(g, dims=(31,), kind=GGMLQuantizationType.Q4_1),
        24,
        "needs a multiple of 32",
    ),
    "offset between alignments": (lambda g: with_tensor(g, offset=4), 24, "multiple of 32"),
    "offset past the end": (lambda g: with_tensor(g, offset=1 << 40), 24, "truncated?"),
    "offset that wraps": (lambda g: with_tensor(g, offset=HUGE - 31), 24, "truncated?"),
    "data cut short": (lambda g: with_tensor(g, data=b"\0" * 15), 24, "truncated?"),
    "overlap": (overlapping, 57, "'a' and 'b' overlap"),
    "tensor twice": (twice_the_tensor, 57, "tensor 'w' appears twice"),
    # ggml wrote more than 4 dimensions into an array of 4.
    "CVE-2024-21802": (lambda g: with_tensor(g, rank=0x7FFFFFFF), 33, "2147483647 dimensions"),
    # The length of a string plus one wrapped to 0 before the allocation.
    "CVE-2024-23496": (
        lambda g: g(pairs=[("k", 8, struct.pack("<Q", HUGE))]),
        37,
        "length of metadata 'k' is 18446744073709551615",
    ),
    # A file that ended inside the pairs left some of them uninitialised, and they were freed.
    "CVE-2024-32878": (lambda g: g(pair_count=2).set("k", 1), 41, "key is empty"),
    # A token longer than 2 GiB passed a signed comparison of its length.
    "CVE-2025-49847": (
        lambda g: with_array(g, 8, 1, struct.pack("<Q", (1 << 31) + 1) + b"x" * 64),
        49,
        "33554432 accepted",
    ),
    # The sum of the tensors' padded sizes wrapped, so that less was allocated than copied.
    "CVE-2025-53630": (
        lambda g: g(
            tensors=with_tensor(g, dims=(1 << 61,)).tensors
            + with_tensor(g, dims=(1 << 61,), name="v").tensors
        ),
        24,
        "overflows 63 bits",
    ),
    # The same, through the bytes added for the table itself: a total just below the limit.
    "CVE-2026-27940": (
        lambda g: with_tensor(g, dims=((1 << 61) - 8,)),
        24,
        "of a file of",
    ),
    # A product of dimensions that wraps to something small.
    "CVE-2026-33298": (
        lambda g: with_tensor(g, dims=(1 << 32, (1 << 32) + 1)),
        33,
        "their product at most",
    ),
}


def text_items(*items):
    return b"".join(struct.pack("<Q", len(item)) + item for item in items)


@pytest.mark.parametrize("case", CASES)
def test_rejected(case, gguf, write, bounded):
    make, offset, message = CASES[case]
    path = write(make(gguf))
    bounded()
    tracemalloc.start()
    with pytest.raises(CheckpointError) as caught:
        read_gguf(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message in str(caught.value)
    assert caught.value.offset == offset
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1
    assert peak < 4 << 20


def test_every_truncation(gguf, model, write, bounded):
    data = model("llama").bytes()
    header = data.index(b"\0" * 32, 24)
    bounded()
    for size in [*range(0, 1200, 7), header, len(data) - 1]:
        with pytest.raises(CheckpointError):
            read_gguf(write(data[:size]))


def test_strings_of_a_file_are_limited(gguf, write, bounded):
    # 24 MB of empty strings: present, so no length check stops them.
    count = 1_500_000
    data = struct.pack("<IQ", ValueType.STRING, count) + bytes(8 * count)
    file = gguf(pairs=[("a", ValueType.ARRAY, data), ("b", ValueType.ARRAY, data)])
    path = write(file)
    bounded()
    with pytest.raises(CheckpointError, match="a file may hold 2000000 in all"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "config.json: cannot be read"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (os.mkfifo, "not a regular file"),
    ],
)
def test_not_a_file(tmp_path, make, message):
    path = tmp_path / "model"
    make(path)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


def test_name_that_no_system_accepts():
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint("a\0b")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint("x" * 5000)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint("no\nsuch\x1b[2Jfile")
    assert str(caught.value).isprintable()


EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([struct.pack("<Q", n) for n in (0, 1, 1 << 31, 1 << 63, HUGE)]),
        ),
    ),
    min_size=1,
    max_size=4,
)


def message_of(path):
    """What opening the file and reading all of it raised, or nothing."""
    try:
        for entry in open_checkpoint(path).tensors.values():
            entry.raw()
    except CheckpointError as error:
        return str(error)
    return ""


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits=EDITS, cut=st.one_of(st.none(), st.floats(0, 1)), kind=st.sampled_from("lqg"))
def test_mutations_raise_nothing_else(edits, cut, kind, model, write, bounded):
    names = {"l": "llama", "q": "qwen2", "g": "gemma3"}
    data = bytearray(model(names[kind]).bytes())
    header = data.rindex(b"blk.") + 80
    for place, patch in edits:
        start = int(place * header)
        data[start : start + len(patch)] = patch
    path = write(bytes(data if cut is None else data[: int(cut * len(data))]))
    bounded()
    assert len(message_of(path).splitlines()) <= 1
