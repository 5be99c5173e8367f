"""Every command in a ```console block of the documentation runs and says what the page says.

On a page, blocks share one empty folder and run in order. A block with a title is a file in it:

    ```mlir title="add.mlir"

In a ```console block a line that starts with `$ ` is a command, and the lines up to the next one
are what it prints; `...` stands for a part of a line, alone on a line for any lines, and no line
at all for any output. A command that exits with another code than 0 is followed by `[exit 1]`.
`<!-- not run: why -->` on the line before a block leaves it out; but what it gives nybble must be
options that there are, as in a ```text block.
"""

import itertools
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from nybble.tools import driver

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: [^\n]* -->\n)?```(?P<kind>\w+)(?: +title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
EXIT = re.compile(r"\[exit (\d+)\]")


@dataclass(frozen=True)
class Command:
    """One command of a page, the lines it is said to print, and its exit code."""

    line: str
    prints: list[str]
    code: int


def commands(body):
    """The commands of a console block."""
    for chunk in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, *rest = chunk.rstrip("\n").split("\n")
        while line.endswith("\\"):
            line = line[:-1] + rest.pop(0)
        code = int(found[1]) if rest and (found := EXIT.fullmatch(rest[-1])) else 0
        yield Command(line, rest[:-1] if code else rest, code)


def matches(printed, expected):
    """Whether the printed lines are the expected ones, but for what `...` stands for."""
    if not expected:
        return True
    pattern = "\n".join("(?s:.*)" if line == "..." else line_pattern(line) for line in expected)
    return re.fullmatch(pattern, printed.rstrip("\n")) is not None


def line_pattern(line):
    return "[^\n]*".join(map(re.escape, line.split("...")))


def steps(page):
    """The titled files and the commands of a page, in order."""
    for block in BLOCK.finditer(page.read_text()):
        if block["title"]:
            yield block["title"], block["body"]
        elif block["kind"] == "console" and not block["skip"]:
            yield from ((None, command) for command in commands(block["body"]))


def unrun(page):
    """The words of the commands of nybble that a page shows and that are not run."""
    for block in BLOCK.finditer(page.read_text()):
        if block["kind"] == "text" or block["skip"]:
            for command in commands(block["body"]):
                if not command.line.startswith("nybble "):
                    continue
                lexer = shlex.shlex(command.line, posix=True, punctuation_chars="|<>;")
                lexer.whitespace_split = True
                words = list(itertools.takewhile(lambda word: word[0] not in "|<>;", lexer))
                yield words[1:]


def read(words):
    """Read a command's words as the program would; raises click.UsageError where it would."""
    command, rest = driver.command, list(words)
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), rest.pop(0))
        assert command is not None, words
    command.make_context("nybble", rest)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(unrun(page))], ids=lambda page: page.stem
)
def test_what_is_not_run_can_be_read(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in unrun(page):
        read(words)


def test_an_option_that_is_none_is_found():
    with pytest.raises(click.UsageError, match="no-such"):
        read(["bench", "model", "smollm2", "--activations", "no-such"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page, tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for title, content in steps(page):
        if title is not None:
            (tmp_path / title).write_text(content)
            continue
        ran = subprocess.run(
            ["bash", "-o", "pipefail", "-c", content.line],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "PYTHONSAFEPATH": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ran.returncode == content.code, f"{content.line}\n{ran.stdout}"
        assert matches(ran.stdout, content.prints), f"{content.line}\n{ran.stdout}"


def test_console_block_is_read():
    body = "$ first \\\n  --option\nout\n...\nend\n$ second\n[exit 2]\n"
    assert list(commands(body)) == [
        Command("first   --option", ["out", "...", "end"], 0),
        Command("second", [], 2),
    ]


@pytest.mark.parametrize(
    ("expected", "fits"),
    [
        ([], True),
        (["a", "b"], True),
        (["a"], False),
        (["...", "b"], True),
        (["a...", "b"], True),
        (["...x"], False),
    ],
)
def test_output_is_compared(expected, fits):
    assert matches("a\nb\n", expected) == fits
