"""The types of the fpga dialect: streams between processes, and channels to memory."""

from collections.abc import Sequence

from xdsl.dialects.builtin import Float32Type, IntAttr, IntegerType, Signedness
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

WIDEST = 1024
"""Bits of the widest AXI data bus (Arm IHI 0022)."""

Element = IntegerType | Float32Type


def signed(bits: int) -> IntegerType:
    """A signed integer."""
    return IntegerType(bits, Signedness.SIGNED)


def unsigned(bits: int) -> IntegerType:
    """An unsigned integer."""
    return IntegerType(bits, Signedness.UNSIGNED)


def bits_for(low: int, high: int) -> int:
    """Bits of the narrowest signed integer that holds low .. high."""
    return max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + 1


@irdl_attr_definition
class StreamType(ParametrizedAttribute, TypeAttribute):
    """A FIFO between two processes: `!fpga.stream<64x4xsi8, 2>`.

    words: how many pass in one run of the kernel. lanes: elements of a word, the first in the
    lowest bits. depth: words that the FIFO holds.
    """

    name = "fpga.stream"
    words: IntAttr
    lanes: IntAttr
    element: Element
    depth: IntAttr

    @staticmethod
    def get(words: int, lanes: int, element: Element, depth: int = 2) -> "StreamType":
        """A stream of plain numbers."""
        return StreamType(IntAttr(words), IntAttr(lanes), element, IntAttr(depth))

    def with_depth(self, depth: int) -> "StreamType":
        """The same with another depth."""
        return StreamType(self.words, self.lanes, self.element, IntAttr(depth))

    @property
    def element_bits(self) -> int:
        """Bits of an element."""
        return self.element.bitwidth

    @property
    def word_bits(self) -> int:
        """Bits of a word."""
        return self.lanes.data * self.element_bits

    @property
    def is_float(self) -> bool:
        """Whether elements are f32."""
        return isinstance(self.element, Float32Type)

    @property
    def is_signed(self) -> bool:
        """Whether elements are signed integers."""
        element = self.element
        return isinstance(element, IntegerType) and element.signedness.data == Signedness.SIGNED

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` words `x` lanes `x` type `,` depth `>`"""
        with parser.in_angle_brackets():
            dims, element = parser.parse_shape()
            if dims is None or len(dims) != 2:
                parser.raise_error("a stream has two dimensions: words and lanes")
            parser.parse_punctuation(",")
            return (IntAttr(dims[0]), IntAttr(dims[1]), element, IntAttr(parser.parse_integer()))

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        with printer.in_angle_brackets():
            printer.print_string(f"{self.words.data}x{self.lanes.data}x")
            printer.print_attribute(self.element)
            printer.print_string(f", {self.depth.data}")

    def verify(self) -> None:
        for name in ("words", "lanes", "depth"):
            if getattr(self, name).data < 1:
                raise VerifyException(f"{name} of a stream must be at least 1")
        element = self.element
        if isinstance(element, IntegerType) and element.signedness.data == Signedness.SIGNLESS:
            raise VerifyException(f"elements of a stream are siN, uiN or f32, got {element}")


@irdl_attr_definition
class MemoryType(ParametrizedAttribute, TypeAttribute):
    """A channel to memory: `!fpga.memory<64x512>`, 64 words of 512 bits."""

    name = "fpga.memory"
    words: IntAttr
    bits: IntAttr

    @staticmethod
    def get(words: int, bits: int) -> "MemoryType":
        """A channel of plain numbers."""
        return MemoryType(IntAttr(words), IntAttr(bits))

    @property
    def bytes(self) -> int:
        """Bytes of all words."""
        return self.words.data * self.bits.data // 8

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """`<` words `x` bits `>`"""
        with parser.in_angle_brackets():
            dims = parser.parse_dimension_list()
            if len(dims) != 2:
                parser.raise_error("a memory has two dimensions: words and bits of a word")
            return (IntAttr(dims[0]), IntAttr(dims[1]))

    def print_parameters(self, printer: Printer) -> None:
        """See `parse_parameters`."""
        with printer.in_angle_brackets():
            printer.print_string(f"{self.words.data}x{self.bits.data}")

    def verify(self) -> None:
        bits = self.bits.data
        if self.words.data < 1:
            raise VerifyException("a memory must hold at least 1 word")
        if bits < 8 or bits > WIDEST or bits & (bits - 1):
            raise VerifyException(
                f"words of memory have 8 to {WIDEST} bits, a power of two, got {bits}"
            )
