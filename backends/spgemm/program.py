"""Programs of products, compiled: a schedule, an element type and a profile to an ELF file."""

from functools import lru_cache

from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp, f32, f64, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region

from nybble.backends.spgemm.rv.assembly import assembly_of, link
from nybble.backends.spgemm.rv.lower_program import lower_program
from nybble.dialects.spgemm.schedule import Schedule
from nybble.dialects.spgemm.types import SparseTensorType
from nybble.passes.convert_spgemm_to_program import MASKED, program

ELEMENTS: dict[str, Attribute] = {"f64": f64, "f32": f32, "i64": i64}
"""Name -> element type of programs."""


@lru_cache(64)
def compiled(how: Schedule, element: str, profile: str) -> bytes:
    """The ELF file of the product of matrices of any shape; raises CodegenError.

    One whose accumulator is "masked" has a mask as its third operand.
    """
    type_ = SparseTensorType.get((DYNAMIC_INDEX, DYNAMIC_INDEX), ELEMENTS[element])
    types = [type_] * (3 if how.accumulator == MASKED else 2)
    block = Block(arg_types=types)
    lhs, rhs, *mask = block.args
    window = program(lhs, rhs, type_, how, *mask)
    block.add_ops([window, ReturnOp(window.result)])
    module = ModuleOp([FuncOp("product", (types, (type_,)), Region(block))])
    module.verify()
    return link(assembly_of(lower_program(window, profile)), profile)
