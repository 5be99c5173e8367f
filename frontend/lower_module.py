"""A PyTorch module at the `operators` stage: products on low-bit weights, linalg around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from xdsl.dialects import arith, func, tensor
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    FunctionType,
    ModuleOp,
    StringAttr,
    TensorType,
)
from xdsl.dialects.linalg.ops import FillOp
from xdsl.ir import Attribute, Operation
from xdsl.rewriter import Rewriter

from nybble.backends.cpu.linalg_math import fault_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.dialects.registry import make_context
from nybble.frontend.graph import Argument, Role
from nybble.passes.convert_linear_to_mpgemm import ConvertLinearToMPGemm
from nybble.passes.stages import Form

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nybble.frontend.pytorch.import_module import ImportedModule

ELEMENTS: Mapping[str, npt.DTypeLike] = {
    "f32": np.float32,
    "f64": np.float64,
    "i1": np.bool_,
    "i32": np.int32,
    "i64": np.int64,
}
"""Element types that a module may take, give and hold, and numpy's of each."""
SCALARS = {*ELEMENTS, "i8", "index"}
"""Types that it may compute with; of bytes MLIR does not say whether they have a sign."""


def unsupported(op: Operation) -> str | None:
    """Why no code is generated for an operation of a module, or None."""
    if op.name.startswith("math."):
        return fault_of(op)
    if op.name == "arith.remf":
        return "no code is generated for 'arith.remf' (a remainder of floats)"
    for value in (*op.operands, *op.results):
        element = value.type.element_type if isinstance(value.type, TensorType) else value.type
        if isinstance(element, Attribute) and not _is_known(element):
            return f"'{op.name}' on {element} (there is code for {', '.join(ELEMENTS)})"
    return None


def _is_known(element: Attribute) -> bool:
    return str(element) in SCALARS or str(element).startswith("!lowbit.")


FORM = Form(
    frozenset({"builtin", "func", "mpgemm", "lowbit", "linalg", "tensor", "arith", "math"}),
    rules=(unsupported,),
)
"""What a module may consist of at the operators stage."""


@dataclass(frozen=True)
class Lowered:
    """A PyTorch module at the `operators` stage.

    module: its function `main` over mpgemm products, linalg and tensor ops.
    source: the import it came from. arguments: what to bind the arguments of `main` to, in their
    order; values: of each weight and constant among them, by its `source`.
    """

    module: ModuleOp
    source: "ImportedModule"
    arguments: tuple[Argument, ...]
    values: Mapping[str, npt.NDArray[np.generic]]

    @property
    def main(self) -> func.FuncOp:
        """The one function."""
        (function,) = self.module.ops
        assert isinstance(function, func.FuncOp)
        return function


def lower_module(module: "nn.Module", example_inputs: Sequence["Tensor"]) -> Lowered:
    """A module in eval mode, for inputs of the examples' shapes, at the `operators` stage.

    Raises NybbleError for a module that cannot be exported or lowered, and for an operation or an
    element type that there is no code for.
    """
    from nybble.frontend.pytorch.import_module import import_module

    source = import_module(module, example_inputs)
    operators = source.module()
    ConvertLinearToMPGemm().apply(make_context(), operators)
    _refuse_checks(operators)
    constants = lift_constants(operators)
    operators.verify()
    FORM.check(operators, "operators")
    lifted = [Argument(name, Role.CONSTANT, name) for name in constants]
    return Lowered(operators, source, (*source.arguments, *lifted), {**source.weights, **constants})


def _refuse_checks(module: ModuleOp) -> None:
    """Raise NybbleError where a module looks up rows by numbers that only a run knows."""
    for op in module.walk():
        if op.name == "cf.assert":
            raise NybbleError(
                "the module indexes by the values of a tensor (an embedding, x[i], gather), whose "
                "bounds generated code does not check ('cf.assert')",
                location=location_of(op),
                accepted="look-ups outside of the compiled module",
            )


def lift_constants(module: ModuleOp) -> dict[str, npt.NDArray[np.generic]]:
    """Make constant tensors arguments of `main`, and those of one value fills; their values.

    A constant tensor would become a global variable of the object code.
    """
    values: dict[str, npt.NDArray[np.generic]] = {}
    (function,) = module.ops
    assert isinstance(function, func.FuncOp)
    block = function.body.block
    for op in [found for found in function.walk() if isinstance(found, arith.ConstantOp)]:
        dense, type_ = op.value, op.result.type
        if not isinstance(dense, DenseIntOrFPElementsAttr) or not isinstance(type_, TensorType):
            continue
        if dense.is_splat():
            _fill(op, dense, type_)
            continue
        name = f"constant{len(values)}"
        values[name] = _values(dense, type_)
        argument = block.insert_arg(type_, len(block.args))
        op.result.replace_all_uses_with(argument)
        Rewriter.erase_op(op)
    inputs = [argument.type for argument in block.args]
    function.function_type = FunctionType.from_lists(inputs, [*function.function_type.outputs])
    if function.arg_attrs is not None:
        named = [DictionaryAttr({"nybble.name": StringAttr(name)}) for name in values]
        function.arg_attrs = ArrayAttr([*function.arg_attrs, *named])
    return values


def _fill(op: arith.ConstantOp, dense: DenseIntOrFPElementsAttr, type_: TensorType) -> None:
    """rewrite: `constant dense<splat> -> fill(constant, empty)`"""
    scalar = arith.ConstantOp(next(dense.iter_attrs()), dense.get_element_type())
    empty = tensor.EmptyOp([], type_)
    fill = FillOp([scalar.result], [empty.tensor], [type_])
    Rewriter.replace_op(op, [scalar, empty, fill], [fill.results[0]])


def _values(dense: DenseIntOrFPElementsAttr, type_: TensorType) -> npt.NDArray[np.generic]:
    kind = ELEMENTS.get(str(type_.element_type))
    if kind is None:
        raise NybbleError(f"a constant of type {type_}", accepted=", ".join(ELEMENTS))
    return np.array([*dense.get_values()]).astype(kind).reshape(type_.get_shape())
