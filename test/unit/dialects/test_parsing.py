"""Parsing: what text may be refused before, during and after it is parsed, and where."""

import pytest

from nybble.dialects.errors import InvalidIRError, LimitError, NybbleError, SourceLocation
from nybble.dialects.locations import location_of
from nybble.dialects.parsing import MAX_CONSTANT_ELEMENTS, parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.screening import MAX_BYTES, MAX_DIGITS, MAX_NESTING, LineIndex, decode, screen


def parse(text, **options):
    return parse_module(make_context(), text, "f.mlir", **options)


def test_operations_know_their_place():
    module = parse("func.func @f() {\n  func.return\n}", first_line=10)
    places = [str(location_of(operation)) for operation in module.walk()]
    assert places == ["f.mlir:10:1", "f.mlir:10:1", "f.mlir:11:3"]


def test_place_in_the_text_itself_is_kept():
    module = parse('"test.op"() : () -> () loc("model.py":7:2)')
    assert location_of(module.body.block.first_op) == SourceLocation("model.py", 7, 2)


def test_created_operation_has_the_place_of_its_parent():
    module = parse("func.func @f() {\n  func.return\n}")
    function = module.body.block.first_op
    made = function.body.block.last_op.clone()
    made.location = type(module)([]).location
    function.body.block.insert_op_before(made, function.body.block.last_op)
    assert location_of(made) == SourceLocation("f.mlir", 1, 1)


def test_verification_can_be_left_out():
    text = '%0 = "arith.constant"() : () -> i32'
    with pytest.raises(InvalidIRError):
        parse(text)
    parse(text, verify=False)


@pytest.mark.parametrize("text", ["(" * MAX_NESTING, "<" * MAX_NESTING, "()" * 1000, "->" * 1000])
def test_nesting_within_the_bound(text):
    screen(LineIndex(text, "f"))


@pytest.mark.parametrize("text", ["(" * (MAX_NESTING + 1), "<" * (MAX_NESTING + 1)])
def test_nesting_beyond_the_bound(text):
    with pytest.raises(InvalidIRError, match="nested more than 100 deep"):
        screen(LineIndex(text, "f"))


def test_what_looks_wrong_but_is_inside_a_comment_or_a_string():
    screen(LineIndex('// " \\q ( ' + "9" * (MAX_DIGITS + 1) + '\n"((((\\n // \\22 \\""', "f"))
    screen(LineIndex("@i99999999 %i99999999 #i99999999 i16777215 xi9999999999", "f"))


def test_constant_within_the_bound():
    parse(f"%0 = arith.constant dense<0> : tensor<{MAX_CONSTANT_ELEMENTS}xi8>")
    with pytest.raises(InvalidIRError, match="dense constant of 262145 elements"):
        parse(f"%0 = arith.constant dense<0> : tensor<{MAX_CONSTANT_ELEMENTS + 1}xi8>")


def test_input_of_too_many_bytes():
    class Huge(bytes):
        def __len__(self):
            return MAX_BYTES + 1

    with pytest.raises(InvalidIRError, match=f"the input has {MAX_BYTES + 1} bytes"):
        decode(Huge(), "f")


def test_error_of_ours_inside_a_parser_is_given_a_place(monkeypatch):
    def refuse(*_):
        raise NybbleError("no")

    monkeypatch.setattr("xdsl.dialects.arith.ConstantOp.parse", refuse)
    with pytest.raises(NybbleError) as fault:
        parse("\n  %0 = arith.constant 1 : i32")
    assert str(fault.value) == "f.mlir:2:23: no"


def test_limit_that_passes_during_verification_searches_no_place(monkeypatch):
    def hang(*_):
        raise LimitError("too long")

    monkeypatch.setattr("xdsl.dialects.func.FuncOp.verify_", hang)
    with pytest.raises(LimitError) as fault:
        parse("func.func @f() {\n  func.return\n}")
    assert fault.value.location is None


def test_dialect_that_does_not_load_is_not_the_inputs_fault(monkeypatch):
    monkeypatch.setitem(
        __import__("nybble.dialects.registry", fromlist=["_"]).DIALECTS, "broken", "no.module:X"
    )
    with pytest.raises(ModuleNotFoundError):
        parse_module(make_context(), '"broken.op"() : () -> ()', "f.mlir")
