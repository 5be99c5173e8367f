"""The region that groups operators into one launch."""

from collections.abc import Sequence

from xdsl.dialects.builtin import StringAttr
from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    lazy_traits_def,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import (
    HasParent,
    IsolatedFromAbove,
    IsTerminator,
    Pure,
    SingleBlockImplicitTerminator,
)
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.schedule.attrs import KernelSchedule


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """The results of a kernel."""

    name = "fused.yield"
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(KernelOp), Pure()))


@irdl_op_definition
class KernelOp(IRDLOperation):
    """Operators that run as one launch, with the schedule a lowering follows.

    The region names all it reads as block arguments, so that a kernel can be outlined, cached
    and measured by itself. because: why these operators are one kernel, for people.
    """

    name = "fused.kernel"
    inputs = var_operand_def()
    outputs = var_result_def()
    kernel_name = prop_def(StringAttr)
    because = opt_prop_def(StringAttr)
    schedule = opt_prop_def(KernelSchedule)
    body = region_def("single_block")
    traits = traits_def(Pure(), IsolatedFromAbove(), SingleBlockImplicitTerminator(YieldOp))
    assembly_format = (
        "$kernel_name `(` $inputs `)` `:` functional-type($inputs, $outputs) "
        "(`because` $because^)? (`schedule` qualified($schedule)^)? $body attr-dict-with-keyword"
    )

    def __init__(
        self,
        kernel_name: str,
        inputs: Sequence[SSAValue],
        outputs: Sequence[Attribute],
        body: Region,
    ):
        super().__init__(
            operands=[inputs],
            result_types=[outputs],
            properties={"kernel_name": StringAttr(kernel_name)},
            regions=[body],
        )

    def verify_(self) -> None:
        wanted = [value.type for value in self.inputs]
        if [argument.type for argument in self.body.block.args] != wanted:
            raise VerifyException("the region's arguments must have the types of the inputs")
        last = self.body.block.last_op
        assert isinstance(last, YieldOp)
        if [value.type for value in last.arguments] != [value.type for value in self.outputs]:
            raise VerifyException("the yielded values must have the types of the results")
