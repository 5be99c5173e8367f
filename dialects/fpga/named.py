"""Attributes whose parameters are integers and lists of integers, written by name."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from xdsl.dialects.builtin import ArrayAttr, IntAttr
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.parser import AttrParser
from xdsl.printer import Printer

Ints = ArrayAttr[IntAttr]


class NamedAttr(ParametrizedAttribute):
    """`#fpga.x<rows = 4, values = [-1, 1]>`; FIELDS are the names, in the order of the class."""

    FIELDS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def get(cls, **values: int | Sequence[int]) -> Self:
        """The attribute of plain numbers and sequences of them."""
        return cls(*(_attribute(values[name]) for name in cls.FIELDS))  # pyright: ignore[reportCallIssue]

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` (name `=` (integer | `[` integers `]`)) for each of FIELDS `>`"""
        found: list[Attribute] = []
        with parser.in_angle_brackets():
            for index, name in enumerate(cls.FIELDS):
                if index:
                    parser.parse_punctuation(",")
                parser.parse_keyword(name)
                parser.parse_punctuation("=")
                found.append(_attribute(_parse_value(parser)))
        return found

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        said = (f"{name} = {_text(getattr(self, name))}" for name in self.FIELDS)
        with printer.in_angle_brackets():
            printer.print_string(", ".join(said))

    def numbers(self, name: str) -> tuple[int, ...]:
        """The integers of a list."""
        return tuple(one.data for one in getattr(self, name).data)


def _attribute(value: int | Sequence[int]) -> Attribute:
    if isinstance(value, int):
        return IntAttr(value)
    return ArrayAttr([IntAttr(one) for one in value])


def _parse_value(parser: AttrParser) -> int | list[int]:
    listed = parser.parse_optional_comma_separated_list(
        parser.Delimiter.SQUARE, parser.parse_integer
    )
    return parser.parse_integer() if listed is None else listed


def _text(value: Any) -> str:
    if isinstance(value, IntAttr):
        return str(value.data)
    return "[" + ", ".join(str(one.data) for one in value.data) + "]"
