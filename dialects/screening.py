"""A linear look at MLIR text before it is parsed, for what the parser answers badly or not at all.

xDSL's string regex takes exponential time on an unterminated literal, its recursive descent runs
out of stack on deep nesting, and Python refuses to convert very long integers. Each of these is
found here in one pass over the text and raised as a located InvalidIRError.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NoReturn

from nybble.dialects.errors import InvalidIRError, SourceLocation

MAX_BYTES = 256 << 20
"""Text larger than this is refused; a weight belongs in a file of its own, not in the IR."""
MAX_NESTING = 100
"""Levels of brackets; the parser needs about eight stack frames for each."""
MAX_DIGITS = 1000
"""Digits of one integer literal."""
MAX_INTEGER_WIDTH = (1 << 24) - 1
"""Bits of an integer type; the limit that upstream MLIR has."""

_BYTECODE_MAGIC = b"ML\xefR"

_TOKEN = re.compile(
    r"//[^\n]*+"
    r'|(?P<string>"(?:[^"\\\n\v\f]|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+")'
    r'|(?P<quote>")'
    r"|(?P<arrow>->|[<>]=)"
    r"|(?P<open>[({\[])|(?P<close>[)}\]])|(?P<less><)|(?P<greater>>)"
    r"|(?P<control>[\x00-\x08\x0e-\x1f\x7f])"
    r"|(?P<width>(?<![\w%@#!^.$-])[su]?i\d{8,}+\b)"
    rf"|(?P<digits>\d{{{MAX_DIGITS + 1},}}+)"
)


@dataclass(frozen=True)
class LineIndex:
    """Turns an offset in a text into a SourceLocation in logarithmic time.

    first_line: the number of the text's first line in the file `name`, where it is a part of one.
    """

    text: str
    name: str
    first_line: int = 1
    starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts = [0, *(found.end() for found in re.finditer("\n", self.text))]
        object.__setattr__(self, "starts", starts)

    def at(self, offset: int) -> SourceLocation:
        """The location of a character offset (0-based; the length of the text means its end)."""
        line = bisect_right(self.starts, offset)
        column = offset - self.starts[line - 1] + 1
        return SourceLocation(self.name, line + self.first_line - 1, column)


def decode(data: bytes, name: str) -> str:
    """The text of `data`; InvalidIRError at the first byte if it is bytecode or not UTF-8."""
    if len(data) > MAX_BYTES:
        raise InvalidIRError(
            f"the input has {len(data)} bytes",
            location=SourceLocation(name, 1, 1),
            accepted=f"at most {MAX_BYTES} bytes of MLIR text",
        )
    if data.startswith(_BYTECODE_MAGIC):
        raise InvalidIRError(
            "the input is MLIR bytecode",
            location=SourceLocation(name, 1, 1),
            accepted="MLIR text, as mlir-opt prints it",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as fault:
        before = data[: fault.start].decode("utf-8")
        raise InvalidIRError(
            f"byte 0x{data[fault.start]:02x} is not UTF-8 text",
            location=LineIndex(before, name).at(len(before)),
            accepted="MLIR text in UTF-8",
        ) from None


def screen(index: LineIndex) -> None:
    """Raise InvalidIRError at the first place in the text that must not reach the parser."""
    depth = {"bracket": 0, "angle": 0}
    for token in _TOKEN.finditer(index.text):
        match token.lastgroup:
            case "open" | "less":
                _enter(depth, "bracket" if token.lastgroup == "open" else "angle", token, index)
            case "close":
                depth["bracket"] = max(0, depth["bracket"] - 1)
            case "greater":
                depth["angle"] = max(0, depth["angle"] - 1)
            case "quote":
                _reject_string(token, index)
            case "control":
                code = ord(token.group())
                _reject(token, index, f"control character 0x{code:02x}", "MLIR text")
            case "digits":
                digits = f"an integer of {len(token.group())} digits"
                _reject(token, index, digits, f"at most {MAX_DIGITS} digits")
            case "width":
                _check_width(token, index)
            case _:
                pass


def _enter(depth: dict[str, int], kind: str, token: re.Match[str], index: LineIndex) -> None:
    depth[kind] += 1
    if depth[kind] > MAX_NESTING:
        _reject(
            token,
            index,
            f"brackets nested more than {MAX_NESTING} deep",
            f"at most {MAX_NESTING} levels",
        )


def _check_width(token: re.Match[str], index: LineIndex) -> None:
    width = token.group().lstrip("sui")
    if len(width) > len(str(MAX_INTEGER_WIDTH)) or int(width) > MAX_INTEGER_WIDTH:
        _reject(token, index, f"integer type of {width[:40]} bits", f"at most {MAX_INTEGER_WIDTH}")


_STRING_START = re.compile(r'"(?:[^"\\\n\v\f]|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+')


def _reject_string(token: re.Match[str], index: LineIndex) -> NoReturn:
    """A quote that starts no well-formed literal: a bad escape, or no closing quote on its line."""
    good = _STRING_START.match(index.text, token.start())
    assert good is not None, "the token is a quote"
    stop = good.end()
    if index.text[stop : stop + 1] == "\\" and index.text[stop + 1 : stop + 2].strip():
        raise InvalidIRError(
            f"invalid escape '{index.text[stop : stop + 2]}' in a string literal",
            location=index.at(stop),
            accepted=r"\n \t \\ \" or two hexadecimal digits",
        )
    _reject(token, index, "unterminated string literal", "a closing quote on the same line")


def _reject(token: re.Match[str], index: LineIndex, message: str, accepted: str) -> NoReturn:
    raise InvalidIRError(message, location=index.at(token.start()), accepted=accepted)
