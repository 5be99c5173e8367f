"""The text by which xDSL hands a module over to upstream MLIR."""

from io import StringIO

from xdsl.dialects.builtin import ModuleOp
from xdsl.printer import Printer

Source = ModuleOp | str


def generic_text(source: Source) -> str:
    """The module in the generic form that upstream MLIR parses; a text is returned as it is."""
    if isinstance(source, str):
        return source
    stream = StringIO()
    Printer(stream=stream, print_generic_format=True).print_op(source)
    return stream.getvalue()
