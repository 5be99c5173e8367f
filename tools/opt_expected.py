"""`--verify-diagnostics`: compares what was reported with `expected-error` comments in the input.

// expected-error @+1 {{part of the message}}      the line after the comment
// expected-error @below {{...}}                   the next line that is not such a comment
"test.op"() : () -> () // expected-error {{...}}   this line
// expected-error @unknown {{...}}                 an error without a line
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nybble.dialects.errors import NybbleError, SourceLocation

_DIRECTIVE = re.compile(
    r"expected-error(?P<regex>-re)?\s*(?:@(?P<where>[+-]\d+|above|below|unknown))?"
    r"\s*\{\{(?P<text>.*)\}\}"
)
_LOOKS_LIKE_ONE = re.compile(r"expected-(?!error(-re)?\s*(@|\{\{))\w*")


class UnexpectedDiagnosticError(NybbleError):
    """A difference between what a file expects to be reported and what was."""


@dataclass(frozen=True)
class _Expected:
    """One comment: where it stands, the line it means (None: no line), and the text it asks for."""

    comment: SourceLocation
    line: int | None
    text: str
    is_regex: bool

    def matches(self, fault: NybbleError) -> bool:
        line = None if fault.location is None else fault.location.line
        said = f"{fault.message} (accepted: {fault.accepted})"
        pattern = self.text if self.is_regex else re.escape(self.text)
        return line == self.line and re.search(pattern, said) is not None


def check_expected(text: str, name: str, first_line: int, fault: NybbleError | None) -> None:
    """Raise UnexpectedDiagnosticError unless `fault` is exactly what the comments announce.

    text: one part of the input, whose first line is line `first_line` of the file `name`.
    fault: what processing that part raised, or None if it went well.
    """
    missing = list(_directives(text, name, first_line))
    if fault is not None:
        matching = [expected for expected in missing if expected.matches(fault)]
        if not matching:
            raise UnexpectedDiagnosticError(
                f"unexpected error: {fault.message}",
                location=fault.location,
                accepted=_announced(missing),
            ) from fault
        missing.remove(matching[0])
    if missing:
        raise UnexpectedDiagnosticError(
            f"expected error '{missing[0].text}' was not reported", location=missing[0].comment
        )


def _directives(text: str, name: str, first_line: int) -> Iterator[_Expected]:
    lines = text.split("\n")
    for offset, line in enumerate(lines):
        _, slashes, comment = line.partition("//")
        here = SourceLocation(name, first_line + offset, len(line) - len(comment) + 1)
        found = _DIRECTIVE.search(comment)
        if found is not None:
            target = _target(found["where"], offset, lines)
            at = None if target is None else first_line + target
            yield _Expected(here, at, found["text"], found["regex"] is not None)
        elif slashes and _LOOKS_LIKE_ONE.search(comment):
            raise UnexpectedDiagnosticError(
                "malformed expectation", location=here, accepted="expected-error @+1 {{text}}"
            )


def _target(where: str | None, offset: int, lines: list[str]) -> int | None:
    """The line, counted from 0 within the part, that a directive on line `offset` means."""
    match where:
        case None:
            return offset
        case "unknown":
            return None
        case "above":
            return _skip(lines, offset, -1)
        case "below":
            return _skip(lines, offset, 1)
        case _:
            return offset + int(where)


def _skip(lines: list[str], offset: int, step: int) -> int:
    offset += step
    while 0 <= offset < len(lines) and lines[offset].strip().startswith("// expected-"):
        offset += step
    return offset


def _announced(missing: list[_Expected]) -> str:
    if not missing:
        return "no error, for this part has no expected-error comment"
    line = "an error without a line" if missing[0].line is None else f"line {missing[0].line}"
    return f"'{missing[0].text}' at {line}"
