"""Where an operation came from: reads and writes the location that every operation carries."""

from xdsl.dialects.builtin import UNKNOWN_LOC, FileLineColLoc, IntAttr, StringAttr
from xdsl.ir import Operation

from nybble.dialects.errors import SourceLocation


def place(operation: Operation, location: SourceLocation) -> None:
    """Record `location` on an operation whose text gave none of its own."""
    if operation.location == UNKNOWN_LOC:
        operation.location = FileLineColLoc(
            StringAttr(location.file), IntAttr(location.line), IntAttr(location.column)
        )


def location_of(operation: Operation) -> SourceLocation | None:
    """The place of an operation, or of the nearest enclosing one that has a place."""
    current: Operation | None = operation
    while current is not None:
        location = current.location
        if isinstance(location, FileLineColLoc):
            return SourceLocation(location.filename.data, location.line.data, location.column.data)
        current = current.parent_op()
    return None
