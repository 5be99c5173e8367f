"""The one place where an exception becomes a message and an exit code, for every command.

A wrong input ends in one diagnostic of at most MAX_LINES lines: `file:line:col: error: what`,
the source line with a caret, and what would be accepted. A fault of nybble ends in a reproducer
file and its replay command. Nothing ends in a traceback.
"""

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn, TextIO

import click
from xdsl.utils.exceptions import DiagnosticException, ParseError

from nybble.dialects.errors import NybbleError, SourceLocation
from nybble.tools.reproducer import Reproducer

EXIT_OK = 0
EXIT_INPUT = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

MAX_LINES = 15
"""Lines of one printed diagnostic."""
_MESSAGE_LINES = 6
_LINE_WIDTH = 160


class UsageError(NybbleError):
    """A command line that asks for something that does not exist; exits with EXIT_USAGE."""


@dataclass(frozen=True)
class Diagnostic:
    """What a person is told: one sentence, its place and source line, and notes below it."""

    message: str
    location: SourceLocation | None = None
    source_line: str | None = None
    notes: tuple[str, ...] = ()
    severity: str = "error"

    def render(self, program: str) -> str:
        """The printed form; `program` stands where a source location is missing."""
        first, *more = _clean_lines(self.message)
        head = f"{self.location or program}: {self.severity}: {first}"
        notes = [f"note: {line}" for note in self.notes for line in _clean_lines(note)[:2]]
        return "\n".join([head, *more, *self._excerpt(), *notes][:MAX_LINES]) + "\n"

    def _excerpt(self) -> list[str]:
        if self.location is None or self.source_line is None:
            return []
        caret = min(self.location.column - 1, len(self.source_line))
        start = max(0, caret - _LINE_WIDTH // 2)
        shown = _printable(self.source_line[start : start + _LINE_WIDTH])
        return [f"  {shown}", " " * (caret - start + 2) + "^"]


@dataclass
class Session:
    """One run of a command: its name and arguments, and what it takes to report how it ended.

    sources: file name -> text, to quote the line that a diagnostic points at.
    reproducer: what to write down when the fault is nybble's (default: the arguments alone).
    """

    program: str
    arguments: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict[str, str])
    reproducer: Reproducer | None = None
    stream: TextIO | None = None

    def diagnose(self, error: NybbleError) -> Diagnostic:
        """The diagnostic of an error, with the source line it points at."""
        notes = (f"accepted: {error.accepted}",) if error.accepted else ()
        return Diagnostic(error.message, error.location, self._line(error.location), notes)

    def emit(self, diagnostic: Diagnostic) -> None:
        """Print a diagnostic on the error stream."""
        stream = self.stream or sys.stderr
        stream.write(diagnostic.render(self.program))
        stream.flush()

    def _line(self, location: SourceLocation | None) -> str | None:
        if location is None or location.file not in self.sources:
            return None
        lines = self.sources[location.file].split("\n")
        return lines[location.line - 1] if 0 < location.line <= len(lines) else None


@contextmanager
def reported(session: Session) -> Generator[None]:
    """Run the body of a command; whatever escapes it becomes a diagnostic and SystemExit(code)."""
    try:
        yield
    except BrokenPipeError:
        _abandon_stdout()
        raise SystemExit(EXIT_OK) from None
    except (KeyboardInterrupt, click.Abort):
        session.emit(Diagnostic("interrupted"))
        raise SystemExit(EXIT_INTERRUPTED) from None
    except click.exceptions.Exit as leaving:
        raise SystemExit(leaving.exit_code) from None
    except Exception as fault:
        raise SystemExit(_report(session, fault)) from fault


def run_command(command: click.Command, arguments: Sequence[str], session: Session) -> NoReturn:
    """Run a click command to its end and exit with its code (a command returns None or a code)."""
    with reported(session):
        name = session.program
        with command.make_context(name, list(arguments), obj=session) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        raise SystemExit(code if isinstance(code, int) else EXIT_OK)


def _report(session: Session, fault: Exception) -> int:
    known = _as_error(fault)
    if known is not None:
        session.emit(session.diagnose(known))
        return EXIT_USAGE if isinstance(known, UsageError) else EXIT_INPUT
    session.emit(_bug(session, fault))
    return EXIT_BUG


def _as_error(fault: Exception) -> NybbleError | None:
    """The fault as an error about the input, or None if it is not about the input."""
    match fault:
        case NybbleError():
            return fault
        case click.UsageError():
            return UsageError(fault.format_message(), accepted="see --help")
        case click.ClickException():
            return UsageError(fault.format_message())
        case ParseError():
            where = fault.span.get_location()
            return NybbleError(
                fault.msg, location=SourceLocation(where.file, where.line, where.col)
            )
        case DiagnosticException():
            return NybbleError(str(fault))
        case OSError():
            return os_error(fault)
        case MemoryError():
            return NybbleError("not enough memory for this input")
        case _:
            return None


def os_error(fault: OSError) -> NybbleError:
    """What the operating system refused, and on which file."""
    reason = fault.strerror or str(fault)
    subject = f"'{fault.filename}': " if fault.filename is not None else ""
    return NybbleError(f"{subject}{reason}")


def _bug(session: Session, fault: Exception) -> Diagnostic:
    notes = ["this is a fault of nybble, not of the input"]
    reproducer = session.reproducer or Reproducer(session.program, session.arguments)
    try:
        path = reproducer.write(fault)
        notes += [f"everything needed to repeat it is in {path}"]
        notes += [f"replay: {reproducer.replay(path)}"]
    except OSError as refused:
        notes += [f"no reproducer could be written: {refused}"]
    summary = _clean_lines(f"{type(fault).__name__}: {fault}")[0]
    return Diagnostic(f"internal error: {summary}", notes=tuple(notes))


def _abandon_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail as well."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)


def _clean_lines(text: str) -> list[str]:
    """The first lines of a message, each of a readable width and free of control characters."""
    lines = [line for line in text.strip().splitlines() if line.strip()] or ["unknown"]
    return [_shorten(_printable(line)) for line in lines[:_MESSAGE_LINES]]


def _shorten(line: str) -> str:
    """A long line without its middle, for the end of a message often says what is wrong."""
    if len(line) <= 3 * _LINE_WIDTH:
        return line
    return f"{line[:_LINE_WIDTH]} ... {line[-_LINE_WIDTH:]}"


def _printable(text: str) -> str:
    """The text with every character that does not print replaced by one that does."""
    return "".join(char if char.isprintable() else _stand_in(char) for char in text)


def _stand_in(char: str) -> str:
    return " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"
