"""Diagnostics: what each kind of exception is turned into, and how it is printed."""

import io

import click
import pytest
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.errors import NybbleError, SourceLocation
from nybble.tools.diagnostics import (
    EXIT_BUG,
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    MAX_LINES,
    Diagnostic,
    Session,
    UsageError,
    reported,
    run_command,
)
from nybble.tools.reproducer import Reproducer

EXITS = {
    "wrong input": (NybbleError("bad"), EXIT_INPUT, "prog: error: bad"),
    "usage": (UsageError("bad", accepted="good"), EXIT_USAGE, "note: accepted: good"),
    "click usage": (click.UsageError("bad"), EXIT_USAGE, "prog: error: bad"),
    "click file": (click.ClickException("bad"), EXIT_USAGE, "prog: error: bad"),
    "verifier": (VerifyException("bad"), EXIT_INPUT, "prog: error: bad"),
    "missing file": (FileNotFoundError(2, "None", "a"), EXIT_INPUT, "prog: error: 'a': None"),
    "full disk": (OSError(28, "No space left"), EXIT_INPUT, "prog: error: No space left"),
    "no memory": (MemoryError(), EXIT_INPUT, "not enough memory"),
    "interrupt": (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted"),
    "abort": (click.Abort(), EXIT_INTERRUPTED, "interrupted"),
    "fault of ours": (KeyError("x"), EXIT_BUG, "internal error: KeyError: 'x'"),
    "own assertion": (AssertionError(), EXIT_BUG, "internal error: AssertionError"),
}


@pytest.mark.parametrize("case", EXITS)
def test_exit_code_and_message(case, tmp_path):
    fault, code, message = EXITS[case]
    stream = io.StringIO()
    reproducer = Reproducer("prog", ("a", "b c"), path=tmp_path / "r")
    with pytest.raises(SystemExit) as left, reported(Session("prog", (), {}, reproducer, stream)):
        raise fault
    assert left.value.code == code
    assert message in stream.getvalue()
    assert (tmp_path / "r").exists() == (code == EXIT_BUG)
    assert ("replay: prog a 'b c'" in stream.getvalue()) == (code == EXIT_BUG)


def test_command_returns_its_code():
    def run(wanted: int):
        stop = click.Command("c", callback=lambda: wanted)
        with pytest.raises(SystemExit) as left:
            run_command(stop, [], Session("c"))
        return left.value.code

    assert [run(0), run(3)] == [EXIT_OK, 3]


def test_source_line_and_caret():
    session = Session("prog", sources={"f": "one\ntwo three\n"})
    error = NybbleError("bad", location=SourceLocation("f", 2, 5), accepted="four")
    assert session.diagnose(error).render("prog") == (
        "f:2:5: error: bad\n  two three\n      ^\nnote: accepted: four\n"
    )


def test_place_outside_the_text_has_no_excerpt():
    session = Session("prog", sources={"f": "one"})
    error = NybbleError("bad", location=SourceLocation("f", 9, 9))
    assert session.diagnose(error).render("prog") == "f:9:9: error: bad\n"


def test_message_is_bounded_and_printable():
    noise = "\n".join(f"line {i} \x1b[31m" + "x" * 10_000 for i in range(100))
    printed = Diagnostic(noise, SourceLocation("f", 1, 1), noise, (noise,) * 30).render("prog")
    lines = printed.splitlines()
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) < 500
    assert "\x1b" not in printed
