"""Programs of products, compiled: a schedule, an element type and a profile to an ELF file."""

from functools import lru_cache

from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp, f32, f64, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region

from nybble.backends.spgemm.rv.assembly import assembly_of, link
from nybble.backends.spgemm.rv.lower_program import lower_program
from nybble.dialects.spgemm.schedule import Schedule
from nybble.dialects.spgemm.types import SparseTensorType
from nybble.passes.convert_spgemm_to_program import program

ELEMENTS: dict[str, Attribute] = {"f64": f64, "f32": f32, "i64": i64}
"""Name -> element type of programs."""


@lru_cache(64)
def compiled(how: Schedule, element: str, profile: str) -> bytes:
    """The ELF file of the product of matrices of any shape; raises CodegenError."""
    type_ = SparseTensorType.get((DYNAMIC_INDEX, DYNAMIC_INDEX), ELEMENTS[element])
    block = Block(arg_types=[type_, type_])
    window = program(block.args[0], block.args[1], type_, how)
    block.add_ops([window, ReturnOp(window.result)])
    module = ModuleOp([FuncOp("product", ((type_, type_), (type_,)), Region(block))])
    module.verify()
    return link(assembly_of(lower_program(window, profile)), profile)
