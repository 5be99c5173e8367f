"""MLIR text to a verified module, with every fault of the text as one located InvalidIRError."""

import math
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import TracebackType

from xdsl.context import Context
from xdsl.dialects.builtin import (
    AnyDenseElement,
    AnyFloat,
    ComplexType,
    DenseIntOrFPElementsAttr,
    IndexType,
    IntegerType,
    ModuleOp,
    RankedStructure,
)
from xdsl.ir import AttributeInvT, Operation, SSAValue
from xdsl.parser import AttrParser, Parser, UnresolvedOperand
from xdsl.utils.exceptions import (
    MultipleSpansParseError,
    ParseError,
    PyRDLError,
    VerifyException,
)
from xdsl.utils.lexer import Span
from xdsl.utils.mlir_lexer import MLIRTokenKind

from nybble.dialects.errors import InvalidIRError, LimitError, NybbleError, SourceLocation
from nybble.dialects.locations import location_of, place
from nybble.dialects.screening import LineIndex, screen

MAX_CONSTANT_ELEMENTS = 1 << 18
"""Elements of one dense constant: xDSL keeps each as a Python object (16.7M take over 40 s)."""

_UNKNOWN_NAME = re.compile(
    r"(?:Operation |undefined symbol alias )?'?(?P<name>[^' ]+)'?(?: is not|$)"
)


class BitsElement(Parser._TensorLiteralElement):  # pyright: ignore[reportPrivateUsage]
    """A hexadecimal element of a dense constant, which xDSL would take for a number in any type."""

    def to_type(
        self, parser: AttrParser, type: AnyFloat | IntegerType | IndexType | ComplexType
    ) -> int | float | tuple[int, int] | tuple[float, float]:
        """The element as a value of `type`: of a float, these are the bits."""
        if not isinstance(type, AnyFloat) or not isinstance(self.value, int):
            return super().to_type(parser, type)
        size = type.compile_time_size
        if self.value >> 8 * size:
            parser.raise_error(f"more than {size} bytes for a {type}", at_position=self.span)
        return next(type.iter_unpack(self.value.to_bytes(size, "little")))


class LocatingParser(Parser):
    """xDSL's parser, with each operation placed in its source and dense constants bounded."""

    def __init__(self, context: Context, index: LineIndex) -> None:
        self._index = index
        self._first_uses: dict[str, Span] = {}
        super().__init__(context, index.text, index.name)

    def here(self) -> SourceLocation:
        """The place of the token that is being parsed."""
        return self._index.at(self._current_token.span.start)

    def undefined_value(self) -> Span | None:
        """The first use of a value that nothing defined, once parsing has come to an end."""
        if self._current_token.kind is not MLIRTokenKind.EOF:
            return None
        return next((self._first_uses[name] for name in self.forward_ssa_references), None)

    def is_at_end(self) -> bool:
        """Whether nothing but blanks and comments is left."""
        return self._current_token.kind is MLIRTokenKind.EOF

    def parse_operation(self) -> Operation:
        """Parse one operation and record the place it began at."""
        location = self.here()
        operation = super().parse_operation()
        place(operation, location)
        return operation

    def resolve_operand(
        self, operand: UnresolvedOperand, type: AttributeInvT
    ) -> SSAValue[AttributeInvT]:
        """Resolve an operand, and remember where a name was used for the first time."""
        self._first_uses.setdefault(operand.operand_name, operand.span)
        return super().resolve_operand(operand, type)

    def parse_dense_int_or_fp_elements_attr(
        self, type: RankedStructure[AnyDenseElement] | None
    ) -> DenseIntOrFPElementsAttr:
        """Parse a dense constant of a type that is known beforehand."""
        if type is not None:
            self._bound_elements(type)
        return super().parse_dense_int_or_fp_elements_attr(type)

    def _parse_dense_literal_type(self) -> RankedStructure[AnyDenseElement]:
        type = super()._parse_dense_literal_type()
        self._bound_elements(type)
        return type

    def _parse_tensor_literal_element(self) -> Parser._TensorLiteralElement:
        """Parse an element of a dense constant; hexadecimal digits are the bits of a float."""
        is_bits = self._current_token.text[:2] in ("0x", "0X")
        element = super()._parse_tensor_literal_element()
        return BitsElement(element.is_negative, element.value, element.span) if is_bits else element

    def _bound_elements(self, type: RankedStructure[AnyDenseElement]) -> None:
        count = math.prod(type.get_shape())
        if count > MAX_CONSTANT_ELEMENTS:
            raise InvalidIRError(
                f"dense constant of {count} elements",
                location=self.here(),
                accepted=f"at most {MAX_CONSTANT_ELEMENTS} elements; pass weights as arguments",
            )


def parse_module(
    context: Context, text: str, name: str, *, first_line: int = 1, verify: bool = True
) -> ModuleOp:
    """The module that `text` spells, verified unless told otherwise.

    name: file name for locations; first_line: line of that file at which `text` begins.
    Raises InvalidIRError (located) for any text that is not a valid module of known operations.
    """
    index = LineIndex(text, name, first_line)
    screen(index)
    parser = _start(context, index)
    if parser.is_at_end():
        raise InvalidIRError(
            "the input holds no operation", location=parser.here(), accepted="MLIR text"
        )
    with _located(index, parser.here):
        module = _parse(parser)
    place(module, index.at(0))
    if verify:
        verify_module(module)
    return module


def verify_module(module: ModuleOp) -> None:
    """Verify a module; InvalidIRError at the innermost operation that breaks a rule."""

    def culprit() -> SourceLocation | None:
        return location_of(_innermost_failure(module))

    with _located(None, culprit):
        module.verify()


def _start(context: Context, index: LineIndex) -> LocatingParser:
    """A parser on its first token; lexing that token may fail already."""
    with _located(index, lambda: index.at(0)):
        return LocatingParser(context, index)


def _parse(parser: LocatingParser) -> ModuleOp:
    try:
        return parser.parse_module()
    except ParseError as fault:
        use = parser.undefined_value()
        if use is None:
            raise
        raise ParseError(use, f"value {use.text} is used but never defined") from fault


@contextmanager
def _located(
    index: LineIndex | None, where: Callable[[], SourceLocation | None]
) -> Generator[None]:
    """Turn what xDSL raises about an input into an InvalidIRError; let faults of ours pass."""
    try:
        yield
    except NybbleError as fault:
        # To find the place in a module means to verify it once more, which a limit rules out.
        if fault.location is None and not (index is None and isinstance(fault, LimitError)):
            fault.location = where()
        raise
    except (PyRDLError, ImportError, SyntaxError):
        raise  # a dialect that does not load, whatever the input
    except ParseError as fault:
        location = where() if index is None else index.at(_start_of(fault, index.text))
        raise InvalidIRError(_message(fault, index), location=location) from fault
    except VerifyException as fault:
        raise InvalidIRError(str(fault), location=where()) from fault
    except RecursionError as fault:
        raise InvalidIRError("nested too deep to be read", location=where()) from fault
    except Exception as fault:
        if _raised_in_nybble(fault.__traceback__):
            raise
        kind = type(fault).__name__
        raise InvalidIRError(
            f"malformed or unsupported here ({kind}: {fault})", location=where()
        ) from fault


def _start_of(fault: ParseError, text: str) -> int:
    """Where to point: at the name that is not known, where xDSL points at the token after it."""
    named = _UNKNOWN_NAME.match(fault.msg)
    found = text.rfind(named["name"], 0, fault.span.start) if named else -1
    return fault.span.start if found < 0 else found


def _message(fault: ParseError, index: LineIndex | None) -> str:
    reason = fault.msg.strip()
    if reason.startswith("in "):  # a context that xDSL left without its beginning
        reason = f"unexpected token {reason}"
    if not isinstance(fault, MultipleSpansParseError) or index is None:
        return reason
    places = ", ".join(str(index.at(span.start)) for span, _ in fault.refs)
    return f"{reason} ({fault.ref_text or 'see'} {places})"


def _raised_in_nybble(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is code of ours other than this file."""
    module = ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return module.startswith("nybble.") and module != __name__


def _innermost_failure(operation: Operation) -> Operation:
    """The operation to blame: follow the failing child as long as there is one."""
    children = (op for region in operation.regions for block in region.blocks for op in block.ops)
    failing = next((child for child in children if _fails(child)), None)
    return operation if failing is None else _innermost_failure(failing)


def _fails(operation: Operation) -> bool:
    # Whatever is raised, a VerifyException or a fault of an upstream verifier, it is to blame.
    with suppress(Exception):
        operation.verify()
        return False
    return True
