"""Schedules of products in MLIR files, with and without a mask, and what has no program."""

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.dialects.func import Func
from xdsl.parser import Parser

from nybble.backends.spgemm.image import Setup
from nybble.dialects.spgemm.dialect import SpGEMM
from nybble.dialects.spgemm.ops import MatmulOp
from nybble.dialects.spgemm.schedule import Schedule
from nybble.passes.convert_spgemm_to_program import ProgramError, program
from nybble.tools.spgemm_file import schedule_of

TEXT = """
!m = !spgemm.tensor<?x?, f64, "csr", i32>
func.func @f(%a: !m, %m: {mask}) -> !m {{
  %c = spgemm.matmul %a, %a {how} : !m, !m -> !m
  func.return %c : !m
}}
"""


def product(how: str, mask: str = "!m") -> MatmulOp:
    """The product of a function that has one."""
    context = Context()
    for dialect in (Builtin, Func, SpGEMM):
        context.load_dialect(dialect)
    module = Parser(context, TEXT.format(how=how, mask=mask)).parse_module()
    return next(op for op in module.walk() if isinstance(op, MatmulOp))


def test_a_mask_decides_the_accumulator() -> None:
    assert schedule_of(product(""), Setup(64))[0].accumulator == "table"
    assert schedule_of(product("mask %m : !m"), Setup(64))[0].accumulator == "masked"


def test_what_has_no_program_is_refused() -> None:
    with pytest.raises(ProgramError, match="complement"):
        schedule_of(product("mask %m : !m complement"), Setup(64))
    coo = '!spgemm.tensor<?x?, f64, "coo", i32>'
    with pytest.raises(ProgramError, match='operands and result in "csr"'):
        schedule_of(product(f"mask %m : {coo}", coo), Setup(64))
    plain = product("")
    with pytest.raises(ProgramError, match="'masked' without a mask"):
        program(plain.lhs, plain.rhs, plain.result.type, Schedule(accumulator="masked"))
