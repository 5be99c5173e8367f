"""The type of sparse matrices."""

from collections.abc import Sequence

from xdsl.dialects.builtin import ArrayAttr, IntAttr, IntegerType, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit.types import FormatAttr
from nybble.dialects.spgemm.elements import ELEMENTS
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.layouts import INDEX_WIDTHS, Layout


def _spelled(text: str) -> str:
    """The one spelling of a layout that types carry; an unknown one is left to the verifier."""
    try:
        return str(Layout.parse(text))
    except SparseError:
        return text


@irdl_attr_definition
class SparseTensorType(ParametrizedAttribute, TypeAttribute):
    """A sparse matrix: `!spgemm.tensor<64x?, f32, "csr", i32>`.

    Its element is one of `ELEMENTS` or a low-bit format, `#lowbit.format<"q4_0">`; then a layout
    (`layouts.KINDS`) and the type of the indices. Either dimension may be dynamic.
    """

    name = "spgemm.tensor"
    shape: ArrayAttr[IntAttr]
    element: Attribute
    layout: StringAttr
    index: IntegerType

    @staticmethod
    def get(
        shape: Sequence[int], element: Attribute, layout: str = "csr", index_bits: int = 32
    ) -> "SparseTensorType":
        """The type of a matrix of `shape` (rows, columns; -1 is dynamic)."""
        dims = ArrayAttr([IntAttr(dim) for dim in shape])
        return SparseTensorType(
            dims, element, StringAttr(_spelled(layout)), IntegerType(index_bits)
        )

    @property
    def rows(self) -> int:
        """Number of rows; DYNAMIC_INDEX where it is not known."""
        return self.shape.data[0].data

    @property
    def cols(self) -> int:
        """Number of columns; DYNAMIC_INDEX where it is not known."""
        return self.shape.data[1].data

    @property
    def described(self) -> Layout:
        """The layout."""
        return Layout.parse(self.layout.data)

    @property
    def value_name(self) -> str:
        """Name in ELEMENTS of what a value is computed with: f32 of a low-bit format."""
        return "f32" if isinstance(self.element, FormatAttr) else str(self.element)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` rows `x` cols `,` element `,` layout `,` index type `>`"""
        with parser.in_angle_brackets():
            dims = parser.parse_dimension_list()
            parser.parse_punctuation(",")
            element = parser.parse_attribute()
            parser.parse_punctuation(",")
            layout = _spelled(parser.parse_str_literal())
            parser.parse_punctuation(",")
            index = parser.parse_attribute()
        return (ArrayAttr([IntAttr(dim) for dim in dims]), element, StringAttr(layout), index)

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        with printer.in_angle_brackets():
            printer.print_dimension_list([dim.data for dim in self.shape.data])
            printer.print_string(", ")
            printer.print_attribute(self.element)
            printer.print_string(", ")
            printer.print_string_literal(self.layout.data)
            printer.print_string(", ")
            printer.print_attribute(self.index)

    def verify(self) -> None:
        if len(self.shape.data) != 2:
            raise VerifyException(f"a sparse tensor has two dimensions, got {len(self.shape.data)}")
        if self.index.width.data not in INDEX_WIDTHS:
            raise VerifyException(f"indices must be i32 or i64, got {self.index}")
        if not isinstance(self.element, FormatAttr) and str(self.element) not in ELEMENTS:
            raise VerifyException(
                f"unknown element {self.element}; accepted: {', '.join(ELEMENTS)}, #lowbit.format"
            )
        try:
            self.described.check_shape(self.rows, self.cols)
        except SparseError as error:
            raise VerifyException(str(error)) from error
