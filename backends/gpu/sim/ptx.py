"""PTX as data: a module, its kernels, their instructions and operands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from nybble.dialects.errors import NybbleError, SourceLocation


class PtxError(NybbleError):
    """PTX that cannot be read, or that says what the simulator does not model."""


@dataclass(frozen=True)
class Name:
    """A register, special register, variable or label."""

    text: str
    negated: bool = False


@dataclass(frozen=True)
class Number:
    """An immediate: an integer, or the bits of a float of so many bits."""

    value: int
    float_bits: int = 0


@dataclass(frozen=True)
class Address:
    """[base + offset], or [base, {coordinates}] of a tensor."""

    base: Name | Number
    offset: int = 0
    coordinates: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class Group:
    """{a, b, ..}; a | b is a group of which `pair` is set."""

    items: tuple[Operand, ...]
    pair: bool = False


Operand: TypeAlias = Name | Number | Address | Group


@dataclass(frozen=True)
class Instruction:
    """One instruction: `@guard opcode.modifiers operands;` on a line of the text."""

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    line: int
    guard: Name | None = None

    def __str__(self) -> str:
        return ".".join((self.opcode, *self.modifiers))


@dataclass(frozen=True)
class Variable:
    """A variable of a state space, or a parameter: sizes in bytes; None is an extern array's.

    type: of one element. initial: its bytes, or nothing for zeros.
    """

    name: str
    space: str
    type: str
    align: int
    bytes: int | None
    initial: bytes = b""


@dataclass
class Entry:
    """A kernel. registers: name -> type. labels: name -> index of the instruction behind it."""

    name: str
    parameters: list[Variable]
    line: int
    registers: dict[str, str] = field(default_factory=dict[str, str])
    variables: list[Variable] = field(default_factory=list[Variable])
    instructions: list[Instruction] = field(default_factory=list[Instruction])
    labels: dict[str, int] = field(default_factory=dict[str, int])
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass
class Module:
    """A text of PTX: variables at module scope and kernels by name."""

    file: str
    version: str = ""
    target: str = ""
    variables: list[Variable] = field(default_factory=list[Variable])
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])

    def entry(self, name: str | None = None) -> Entry:
        """The kernel of that name, or the only one; raises PtxError."""
        known = ", ".join(self.entries) or "none"
        if name is None and len(self.entries) == 1:
            return next(iter(self.entries.values()))
        if name is None:
            raise PtxError(f"{self.file} has {len(self.entries)} kernels", accepted=known)
        if name not in self.entries:
            raise PtxError(f"{self.file} has no kernel '{name}'", accepted=known)
        return self.entries[name]


def place(file: str, line: int, column: int = 1) -> SourceLocation:
    """A place in a text of PTX."""
    return SourceLocation(file, line, column)
