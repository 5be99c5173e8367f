"""The type of a cache that is no plain tensor: keys or values of a layer in a format of `kv`."""

from collections.abc import Sequence
from contextlib import suppress

from xdsl.dialects.builtin import ArrayAttr, IntAttr, StringAttr, TensorType
from xdsl.ir import Attribute, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.shapes import check_rank
from nybble.dialects.sparse_attn.kv import SIDES, KvError, KvFormat, parse


@irdl_attr_definition
class CacheType(ParametrizedAttribute, TypeAttribute):
    """`!sparse_attn.cache<keys 3x2048x64, "kivi4", 704>`: heads, context, features of a head.

    The number at the end is how many tokens are kept as they are, beside codes: `format.room` of
    the rows that one call appends, or more. A cache without codes has none.
    """

    name = "sparse_attn.cache"
    side: StringAttr
    shape: ArrayAttr[IntAttr]
    spec: StringAttr
    room: IntAttr

    @staticmethod
    def of(side: str, shape: Sequence[int], kv: KvFormat, rows: int) -> "CacheType":
        """The type of keys or values that up to `rows` tokens are appended to at once."""
        sizes = ArrayAttr([IntAttr(size) for size in shape])
        return CacheType(StringAttr(side), sizes, StringAttr(kv.name), IntAttr(kv.room(rows)))

    @property
    def format(self) -> KvFormat:
        """What tokens are held as."""
        return parse(self.spec.data)

    def get_shape(self) -> tuple[int, ...]:
        """Heads, context, features of a head."""
        return tuple(size.data for size in self.shape.data)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` side shape `,` format [`,` room] `>`; the format in its one spelling if it is one."""
        with parser.in_angle_brackets():
            side = parser.parse_identifier()
            dims = parser.parse_dimension_list()
            parser.parse_punctuation(",")
            text = parser.parse_str_literal()
            room = parser.parse_integer() if parser.parse_optional_punctuation(",") else 0
        with suppress(KvError):  # the verifier says what is wrong
            text = parse(text).name
        sizes = ArrayAttr([IntAttr(dim) for dim in dims])
        return (StringAttr(side), sizes, StringAttr(text), IntAttr(room))

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        with printer.in_angle_brackets():
            printer.print_string(f"{self.side.data} ")
            printer.print_dimension_list(self.get_shape())
            printer.print_string(", ")
            printer.print_string_literal(self.spec.data)
            if self.room.data:
                printer.print_string(f", {self.room.data}")

    def verify(self) -> None:
        if self.side.data not in SIDES:
            raise VerifyException(f"a cache of {self.side.data}; accepted: {', '.join(SIDES)}")
        if len(self.shape.data) != 3 or any(size.data < 1 for size in self.shape.data):
            raise VerifyException("a cache must have 3 dimensions, all known")
        try:
            kv = self.format
            kv.check(*self.get_shape()[1:])
        except KvError as error:
            raise VerifyException(str(error)) from error
        if self.room.data < kv.room(1) or (self.room.data and not kv.is_coded):
            raise VerifyException(
                f'room for {self.room.data} tokens as they are in "{kv}"; '
                f"accepted: {kv.room(1)}{' or more' if kv.is_coded else ''}"
            )


def cache_shape(value: SSAValue) -> tuple[int, ...]:
    """Heads, context and features of a cache, of whichever type; raises VerifyException."""
    if isinstance(value.type, CacheType):
        return value.type.get_shape()
    return check_rank("cache", value, 3)


def format_of(type_: Attribute) -> KvFormat:
    """What a cache holds, of whichever type."""
    if isinstance(type_, CacheType):
        return type_.format
    assert isinstance(type_, TensorType)
    return parse(str(type_.element_type))


def other_side(type_: CacheType) -> CacheType:
    """The type of values that goes with that of keys, and the other way round."""
    (side,) = (one for one in SIDES if one != type_.side.data)
    return CacheType(StringAttr(side), type_.shape, type_.spec, type_.room)
