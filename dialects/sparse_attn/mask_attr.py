"""The mask of an attention as an attribute: the text of the mask algebra."""

from collections.abc import Sequence

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.sparse_attn.masks import Mask, MaskError, parse


@irdl_attr_definition
class MaskAttr(ParametrizedAttribute):
    """`#sparse_attn.mask<"sink(4)+window(512)">`; see `masks.grammar` for what may stand there."""

    name = "sparse_attn.mask"
    text: StringAttr

    @staticmethod
    def of(mask: Mask) -> "MaskAttr":
        """The attribute of a mask."""
        return MaskAttr(StringAttr(str(mask)))

    @property
    def mask(self) -> Mask:
        """The mask."""
        return parse(self.text.data)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` text `>`; the text in its one spelling where it is a mask, else for the verifier."""
        with parser.in_angle_brackets():
            text = parser.parse_str_literal()
        try:
            text = str(parse(text))
        except MaskError:
            return (StringAttr(text),)
        return (StringAttr(text),)

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        with printer.in_angle_brackets():
            printer.print_string_literal(self.text.data)

    def verify(self) -> None:
        try:
            parse(self.text.data)
        except MaskError as error:
            raise VerifyException(str(error)) from error
