"""Upstream operations that xDSL lacks: they parse, verify, and print what MLIR reads."""

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.utils.exceptions import VerifyException

from nybble.backends.cpu.codegen import compile_module
from nybble.dialects import upstream

VALID = """
func.func @f(%m: memref<64xf32>, %i: index, %v: vector<16xf32>, %c: vector<16xi8>) {
  %0 = arith.extsi %c : vector<16xi8> to vector<16xi32>
  %1 = arith.extui %c : vector<16xi8> to vector<16xi32>
  %2 = arith.trunci %0 : vector<16xi32> to vector<16xi8>
  %3 = arith.sitofp %0 : vector<16xi32> to vector<16xf32>
  %4 = arith.uitofp %1 : vector<16xi32> to vector<16xf32>
  %5 = arith.fptosi %v : vector<16xf32> to vector<16xi32>
  %6 = "arith.cmpf"(%3, %4) <{fastmath = #arith.fastmath<none>, predicate = 4 : i64}>
    : (vector<16xf32>, vector<16xf32>) -> vector<16xi1>
  %7 = "arith.cmpi"(%0, %1) <{predicate = 0 : i64}>
    : (vector<16xi32>, vector<16xi32>) -> vector<16xi1>
  %8 = "arith.select"(%6, %3, %4)
    : (vector<16xi1>, vector<16xf32>, vector<16xf32>) -> vector<16xf32>
  %9 = vector.shape_cast %8 : vector<16xf32> to vector<4x4xf32>
  %10 = "vector.extract_strided_slice"(%8) <{offsets = [4], sizes = [8], strides = [1]}>
    : (vector<16xf32>) -> vector<8xf32>
  %11 = "vector.insert_strided_slice"(%10, %v) <{offsets = [0], strides = [1]}>
    : (vector<8xf32>, vector<16xf32>) -> vector<16xf32>
  %12 = "vector.interleave"(%10, %10) : (vector<8xf32>, vector<8xf32>) -> vector<16xf32>
  %13 = "memref.load"(%m, %i) : (memref<64xf32>, index) -> f32
  %14 = "vector.from_elements"(%13, %13) : (f32, f32) -> vector<2xf32>
  %15 = "vector.gather"(%m, %i, %5, %7, %v)
    : (memref<64xf32>, index, vector<16xi32>, vector<16xi1>, vector<16xf32>) -> vector<16xf32>
  "memref.prefetch"(%m, %i) <{isDataCache = true, isWrite = false, localityHint = 3 : i32}>
    : (memref<64xf32>, index) -> ()
  func.return
}
"""


def parse(text):
    context = Context()
    for dialect in (Builtin, Func, *upstream.dialects()):
        context.load_dialect(dialect)
    module = Parser(context, text).parse_module()
    module.verify()
    return module


def test_every_operation_parses_and_verifies():
    names = {op.name for op in parse(VALID).walk()}
    ops = [op for dialect in upstream.dialects() for op in dialect.operations]
    ours = {op.name for op in ops if op.__module__ == upstream.__name__}
    assert ours <= names


def test_mlir_reads_the_generic_form():
    assert compile_module(parse(VALID))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("arith.extsi %v : vector<4xi32> to vector<4xi8>", "needs a wider result"),
        ("arith.extui %v : vector<4xi32> to vector<4xi32>", "needs a wider result"),
        ("arith.trunci %v : vector<4xi32> to vector<4xi64>", "needs a narrower result"),
        ("arith.sitofp %v : vector<4xi32> to vector<8xf32>", "cannot change the shape"),
        ("arith.sitofp %v : vector<4xi32> to f32", "cannot change the shape"),
        (
            '"arith.select"(%b, %v, %v) : (vector<2xi1>, vector<4xi32>, vector<4xi32>)'
            " -> vector<4xi32>",
            "needs one bit per element",
        ),
        (
            '"arith.cmpi"(%v, %v) <{predicate = 0 : i64}> : (vector<4xi32>, vector<4xi32>) -> i1',
            "two operands of one type and one bit per element",
        ),
    ],
)
def test_refused(line, message):
    text = f"func.func @f(%v: vector<4xi32>, %b: vector<2xi1>) {{\n  %0 = {line}\n  func.return\n}}"
    with pytest.raises(VerifyException, match=message):
        parse(text)
