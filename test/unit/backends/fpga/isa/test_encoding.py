"""Instructions as words and as text: fields survive, and what is no instruction is refused."""

import random
from pathlib import Path

import pytest

from nybble.backends.fpga.isa.assembly import AssemblyError, assemble, disassemble, line_of
from nybble.backends.fpga.isa.encoding import EncodingError, Instruction, decode, encode
from nybble.backends.fpga.isa.instructions import CODES, INSTRUCTIONS, UNITS, WORD_BITS, table


def some(seed):
    """Random instructions with every field at random."""
    chance = random.Random(seed)
    for _ in range(200):
        unit = chance.choice(UNITS)
        values = {
            one.name: chance.randrange(len(one.names) or 1 << one.bits)
            for one in INSTRUCTIONS[unit].fields[3:]
        }
        masks = [frozenset(chance.sample(UNITS, chance.randrange(4))) for _ in range(2)]
        yield Instruction(unit, values, *masks)


def test_words_are_flightllms_and_fields_fill_them():
    words = {"ld": 7, "st": 3, "mm": 4, "mv": 4, "misc": 3, "sys": 1}
    assert {name: one.words for name, one in INSTRUCTIONS.items()} == words
    for one in INSTRUCTIONS.values():
        assert sum(known.bits for known in one.fields) == one.words * WORD_BITS
        assert len({known.name for known in one.fields}) == len(one.fields)
        assert all(len(known.names) <= 1 << known.bits for known in one.fields)
    assert len(CODES) == len(INSTRUCTIONS)


@pytest.mark.parametrize("seed", range(3))
def test_words_and_text_read_back(seed):
    program = [*some(seed)]
    data = b"".join(map(encode, program))
    assert len(data) == sum(one.layout.bytes for one in program)
    found = [*decode(data)]
    for one, other in zip(program, found, strict=True):
        assert (one.unit, dict(one.values), one.wait, one.release) == (
            other.unit, dict(other.values), other.wait, other.release
        )  # fmt: skip
    lines = [line_of(one) for one in program]
    again = [one.full() for one in assemble("# a comment\n\n" + "\n".join(lines))]
    assert b"".join(map(encode, again)) == data


def test_loops_are_indented():
    text = "sys action=loop value=2\nmv first=1\nsys action=end\nsys action=halt"
    assert [*disassemble(assemble(text))][1] == "  mv first=1"
    assert [*disassemble(assemble(text))][3] == "sys action=halt"


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (Instruction("mv", {"keep": 32}), r"mv.keep of 32 \(accepted: 0 to 31"),
        (Instruction("mv", {"source": 3}), r"mv.source of 3 \(accepted: 0 to 2"),
        (Instruction("ld", {"address": -1}), "ld.address of -1"),
        (Instruction("sys", {"keep": 1}), r"sys has no field 'keep' \(accepted: code, wait"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(one, message):
    with pytest.raises(EncodingError, match=message):
        encode(one)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\0", "no instruction at byte 0"),
        (encode(Instruction("sys", {})) + b"\4\0\0\0", "no instruction at byte 4"),
        ((15 | 9 << 16).to_bytes(4, "little"), r"sys.action is 9 at byte 0 \(accepted: 0 to 3"),
    ],
)
def test_words_that_are_no_instruction_are_refused(data, message):
    with pytest.raises(EncodingError, match=message):
        [*decode(data)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mv\nfma", r"line 2: 'fma' \(accepted: ld, st"),
        ("mv depth=3", r"line 1: 'depth=3' \(accepted: wait, release"),
        ("mv wait=gpu", r"line 1: unit 'gpu' \(accepted: ld, st"),
        ("mv source=weights", r"line 1: source=weights \(accepted: matrix, keys"),
        ("mv bits=four", "line 1: bits=four .accepted: a number"),
        ("mv bits", "line 1: 'bits'"),
    ],
)
def test_text_that_is_no_instruction_is_refused(text, message):
    with pytest.raises(AssemblyError, match=message):
        [*assemble(text)]


def test_the_documentation_has_the_table():
    page = Path(__file__).parents[5] / "docs" / "fpga.md"
    assert table() in page.read_text()
