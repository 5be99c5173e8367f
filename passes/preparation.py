"""What the passes that change weights share: reading a function's operators, and noting on its
arguments the steps by which the runtime prepares them."""

from collections.abc import Mapping, Sequence

from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, StringAttr
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue

from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.steps import PREPARE, StepAttr
from nybble.dialects.mpgemm.ops import MatmulOp

NAME = "nybble.name"
SOURCE = "nybble.weight"


class PreparationError(NybbleError):
    """A parameter that cannot be prepared, because of what it is or of who else reads it."""


def argument_attributes(function: func.FuncOp, index: int) -> Mapping[str, Attribute]:
    """The attributes of an argument."""
    if function.arg_attrs is None or index >= len(function.arg_attrs):
        return {}
    return function.arg_attrs.data[index].data


def steps_of(function: func.FuncOp, index: int) -> tuple[StepAttr, ...]:
    """The steps that an argument is prepared by, first to last."""
    found = argument_attributes(function, index).get(PREPARE)
    if not isinstance(found, ArrayAttr):
        return ()
    return tuple(step for step in found.data if isinstance(step, StepAttr))


def source_of(value: SSAValue) -> str:
    """The checkpoint's name of a parameter, without "weight" at its end; errors as below."""
    return parameter_of(value)[0].removesuffix(".weight")


def parameter_of(value: SSAValue) -> tuple[str, tuple[StepAttr, ...]]:
    """The checkpoint's name of a parameter, and the steps that it is prepared by.

    Raises PreparationError for a value that is not an argument with the attribute SOURCE.
    """
    function, index = _argument(value)
    found = argument_attributes(function, index).get(SOURCE)
    if not isinstance(found, StringAttr):
        raise PreparationError(
            f"argument {index} of '{function.sym_name.data}' has no attribute '{SOURCE}'",
            location=location_of(function),
            accepted="the name of its tensor in the checkpoint",
        )
    return found.data, steps_of(function, index)


def prepare(value: SSAValue, *steps: StepAttr) -> None:
    """Add steps to the preparation of a parameter; PreparationError unless one op reads it."""
    function, index = _argument(value)
    if len(list(value.uses)) != 1:
        raise PreparationError(
            f"argument {index} of '{function.sym_name.data}' is read more than once, and cannot be "
            "prepared for one reader alone",
            location=location_of(function),
        )
    count = len(function.body.block.args)
    attributes = [dict(argument_attributes(function, i)) for i in range(count)]
    attributes[index][PREPARE] = ArrayAttr([*steps_of(function, index), *steps])
    function.arg_attrs = ArrayAttr([DictionaryAttr(one) for one in attributes])


def _argument(value: SSAValue) -> tuple[func.FuncOp, int]:
    owner = value.owner.parent_op() if isinstance(value, BlockArgument) else None
    if not isinstance(value, BlockArgument) or not isinstance(owner, func.FuncOp):
        raise PreparationError(
            f"a parameter of type {value.type} is not an argument of its function",
            location=location_of(value.owner) if isinstance(value.owner, Operation) else None,
        )
    return owner, value.index


def users(value: SSAValue) -> list[Operation]:
    """The operators that read a value, each once, in program order."""
    found = {use.operation: None for use in value.uses}
    block = next(iter(found)).parent if found else None
    return [op for op in (block.ops if block else ()) if op in found]


def only_products(value: SSAValue) -> Sequence[MatmulOp]:
    """The products that read a value; empty if something else reads it too, or nothing."""
    readers = users(value)
    products = [op for op in readers if isinstance(op, MatmulOp)]
    return products if len(products) == len(readers) else ()


def block_functions(module: Operation) -> list[func.FuncOp]:
    """The functions with a body."""
    return [op for op in module.walk() if isinstance(op, func.FuncOp) and op.body.blocks]
