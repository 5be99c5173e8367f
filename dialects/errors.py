"""The one base of every error that says the user's input is wrong, for all layers to raise."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLocation:
    """A place in a text file or stream; line and column count from 1, column in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class NybbleError(Exception):
    """What is wrong with an input, where, and what would be accepted instead.

    Every exception class of the project derives from this one (a test looks); a tool prints it as
    one diagnostic and exits with 1. Anything else that escapes is treated as a fault of nybble.

    message: one sentence with the offending value in it.
    location: a place in a source text, or None where there is no text (a binary file, an option).
    accepted: what would have been accepted, or None if the message already says so.
    """

    def __init__(
        self,
        message: str,
        *,
        location: SourceLocation | None = None,
        accepted: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.accepted = accepted

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        hint = f" (accepted: {self.accepted})" if self.accepted else ""
        return f"{where}{self.message}{hint}"


class UnknownNameError(NybbleError):
    """A name that no row of a registry has."""


class LimitError(NybbleError):
    """A step that used up the time it was given; its input may be right, but is too much."""


class InvalidIRError(NybbleError):
    """Text that is not MLIR, or IR that breaks a rule of the language or of an operation."""


class InternalError(Exception):
    """A fault of nybble that nybble itself noticed; the base of every such exception class."""
