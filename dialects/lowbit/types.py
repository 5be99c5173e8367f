"""IR types of number formats: the format attribute and the low-bit tensor type."""

from collections.abc import Sequence

from xdsl.dialects.builtin import DYNAMIC_INDEX, ArrayAttr, IntAttr, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit import formats

STORAGE = "storage"
LAYOUTS = (
    STORAGE,
    "tile64",
    "lut1",
    "lut4",
    "planes64",
    "stream",
    "stream_planes",
    "stream_lookup",
    "array",
)


def _checked_format(spec: str) -> formats.Format:
    try:
        return formats.get(spec)
    except formats.FormatError as error:
        raise VerifyException(str(error)) from error


def canonical(spec: str) -> str:
    """The one spelling of a format that types carry; an unknown one is left to the verifier."""
    try:
        return formats.get(spec).spec
    except formats.FormatError:
        return spec


def parse_matrix(parser: AttrParser, defaults: Sequence[str | None]) -> Sequence[Attribute]:
    """`<` rows `x` cols `,` format (`,` text)* `>`: the shape, the canonical format, the texts.

    defaults: of each text, which may be left out from the last on; None where it may not.
    """
    with parser.in_angle_brackets():
        dims = parser.parse_dimension_list()
        parser.parse_punctuation(",")
        texts = [canonical(parser.parse_str_literal())]
        for default in defaults:
            if default is None:
                parser.parse_punctuation(",")
            if default is None or parser.parse_optional_punctuation(","):
                texts.append(parser.parse_str_literal())
            else:
                texts.append(default)
    return (ArrayAttr([IntAttr(dim) for dim in dims]), *map(StringAttr, texts))


def print_matrix(
    printer: Printer, shape: ArrayAttr[IntAttr], texts: Sequence[StringAttr], default: str
) -> None:
    """The inverse of `parse_matrix`; the last text is left out where it is the default."""
    shown = texts[:-1] if texts[-1].data == default else texts
    with printer.in_angle_brackets():
        printer.print_dimension_list([dim.data for dim in shape.data])
        for text in shown:
            printer.print_string(", ")
            printer.print_string_literal(text.data)


@irdl_attr_definition
class FormatAttr(ParametrizedAttribute):
    """A number format by its spelling, `#lowbit.format<"q4_1">`."""

    name = "lowbit.format"
    spec: StringAttr

    def verify(self) -> None:
        _checked_format(self.spec.data)


@irdl_attr_definition
class LowBitTensorType(ParametrizedAttribute, TypeAttribute):
    """A matrix whose elements have a low-bit format: `!lowbit.tensor<576x1536, "q4_1">`.

    The first dimension may be dynamic (`?`, tokens of an activation). A third parameter names
    the order of the bytes; without one it is the format's own storage order.
    """

    name = "lowbit.tensor"
    shape: ArrayAttr[IntAttr]
    format: StringAttr
    layout: StringAttr

    @staticmethod
    def get(shape: Sequence[int], spec: str, layout: str = STORAGE) -> "LowBitTensorType":
        """The type of a matrix of `shape` (rows, columns) in format `spec`."""
        dims = ArrayAttr([IntAttr(dim) for dim in shape])
        return LowBitTensorType(dims, StringAttr(canonical(spec)), StringAttr(layout))

    @property
    def rows(self) -> int:
        """Number of rows; DYNAMIC_INDEX where it is not known."""
        return self.shape.data[0].data

    @property
    def cols(self) -> int:
        """Number of columns, the contracted dimension."""
        return self.shape.data[1].data

    @property
    def number_format(self) -> formats.Format:
        """The format's description."""
        return formats.get(self.format.data)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` rows `x` cols `,` format (`,` layout)? `>`"""
        return parse_matrix(parser, (STORAGE,))

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        print_matrix(printer, self.shape, (self.format, self.layout), STORAGE)

    def verify(self) -> None:
        if len(self.shape.data) != 2:
            raise VerifyException(
                f"a low-bit tensor has two dimensions, got {len(self.shape.data)}"
            )
        if self.cols == DYNAMIC_INDEX:
            raise VerifyException("the contracted dimension of a low-bit tensor must be static")
        if self.layout.data not in LAYOUTS:
            raise VerifyException(
                f'unknown layout "{self.layout.data}"; accepted: {", ".join(LAYOUTS)}'
            )
        description = _checked_format(self.format.data)
        rows = 1 if self.rows == DYNAMIC_INDEX else self.rows
        try:
            description.check_shape((rows, self.cols))
        except formats.FormatError as error:
            raise VerifyException(str(error)) from error
