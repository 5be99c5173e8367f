"""The type of an activation's lookup tables."""

from collections.abc import Sequence

from xdsl.dialects.builtin import DYNAMIC_INDEX, ArrayAttr, IntAttr, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.element import Uniform
from nybble.dialects.lowbit.types import canonical, parse_matrix, print_matrix
from nybble.dialects.numpy_ref.lookup import WIDTH

EXACT, ROUNDED, HALF = "i16", "i8", "f16"
ENTRIES = (EXACT, ROUNDED, HALF)
FLOATS = "f32"
"""The format of an activation whose tables have entries of HALF."""
FULL, SYMMETRIC = "full", "symmetric"
FORMS = (FULL, SYMMETRIC)


@irdl_attr_definition
class TableType(ParametrizedAttribute, TypeAttribute):
    """Lookup tables of an activation: `!mpgemm.table<?x64, "a8g32", "i16", "symmetric">`.

    Tokens (`?` if dynamic) and columns of the activation, its format, and the type of an entry:
    "i16" holds the sums of four integers exactly, "i8" rounds them with a scale per group, "f16"
    rounds each sum of four floats of format "f32". Without a fourth parameter a table holds all 16
    sums of four columns, a symmetric one half of them.
    """

    name = "mpgemm.table"
    shape: ArrayAttr[IntAttr]
    format: StringAttr
    entries: StringAttr
    form: StringAttr

    @staticmethod
    def get(shape: Sequence[int], spec: str, entries: str, form: str = FULL) -> "TableType":
        """The tables of an activation of `shape` (tokens, columns) in format `spec`."""
        dims = ArrayAttr([IntAttr(dim) for dim in shape])
        return TableType(dims, StringAttr(canonical(spec)), StringAttr(entries), StringAttr(form))

    @property
    def rows(self) -> int:
        """Number of tokens; DYNAMIC_INDEX where it is not known."""
        return self.shape.data[0].data

    @property
    def cols(self) -> int:
        """Columns of the activation."""
        return self.shape.data[1].data

    @property
    def number_format(self) -> formats.Format:
        """The activation's format."""
        return formats.get(self.format.data)

    @property
    def exact(self) -> bool:
        """Whether entries are the sums themselves."""
        return self.entries.data == EXACT

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry."""
        return 1 if self.entries.data == ROUNDED else 2

    @property
    def symmetric(self) -> bool:
        """Whether only half of the entries is kept, the others being their negatives."""
        return self.form.data == SYMMETRIC

    def with_rows(self, rows: int) -> "TableType":
        """The same for another number of tokens."""
        shape = (rows, self.cols)
        return TableType.get(shape, self.format.data, self.entries.data, self.form.data)

    def with_form(self, form: str) -> "TableType":
        """The same, full or symmetric."""
        return TableType.get((self.rows, self.cols), self.format.data, self.entries.data, form)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` tokens `x` cols `,` format `,` entries (`,` form)? `>`"""
        return parse_matrix(parser, (None, FULL))

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        print_matrix(printer, self.shape, (self.format, self.entries, self.form), FULL)

    def verify(self) -> None:
        if len(self.shape.data) != 2:
            raise VerifyException(f"tables have two dimensions, got {len(self.shape.data)}")
        if self.cols == DYNAMIC_INDEX:
            raise VerifyException("the number of columns of tables must be static")
        if self.entries.data not in ENTRIES:
            raise VerifyException(
                f'unknown type of entries "{self.entries.data}"; accepted: {", ".join(ENTRIES)}'
            )
        if self.form.data not in FORMS:
            raise VerifyException(
                f'unknown form of tables "{self.form.data}"; accepted: {", ".join(FORMS)}'
            )
        self._check_activation()

    def _check_activation(self) -> None:
        try:
            description = self.number_format
            description.check_shape((1, self.cols))
        except formats.FormatError as error:
            raise VerifyException(str(error)) from error
        if (self.entries.data == HALF) != (self.format.data == FLOATS):
            raise VerifyException(
                f'tables of "{self.format.data}" have no entries of "{self.entries.data}"; '
                f'accepted: "{HALF}" of "{FLOATS}", "{EXACT}" or "{ROUNDED}" of "a8gN"'
            )
        if self.entries.data == HALF:
            return
        element = description.element
        if not (isinstance(element, Uniform) and element.bits == 8 and element.narrow):
            raise VerifyException(
                f'tables are built from 8-bit activations, got "{self.format.data}"; accepted: a8gN'
            )
        if description.group_size(self.cols) % WIDTH:
            raise VerifyException(
                f"an activation's groups must be a multiple of {WIDTH} columns, got "
                f"{description.group_size(self.cols)}"
            )
