"""Stages: ranges of them, their forms, and where a break of a form is reported."""

import pytest

from nybble.dialects.errors import SourceLocation, UnknownNameError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.stages import (
    Form,
    FormError,
    Stage,
    StageOrderError,
    find_stage,
    run_stage,
    stages_between,
)

ANYTHING = Form(frozenset({"builtin", "func"}))
ROWS = tuple(Stage(name, "", ANYTHING) for name in ("a", "b", "c"))


def names(start, stop):
    return [stage.name for stage in stages_between(start, stop, ROWS)]


def test_ranges():
    assert names(None, "a") == ["a"]
    assert names(None, "c") == ["a", "b", "c"]
    assert names("a", "c") == ["b", "c"]


@pytest.mark.parametrize(("start", "stop"), [("b", "b"), ("c", "a")])
def test_range_that_runs_backwards(start, stop):
    with pytest.raises(StageOrderError, match=f"'{stop}' does not come after '{start}'"):
        stages_between(start, stop, ROWS)


def test_unknown_stage_names_the_stages():
    with pytest.raises(UnknownNameError, match="unknown stage 'd'") as fault:
        find_stage("d", ROWS)
    assert fault.value.accepted == "a, b, c"


def checked(text, form):
    context = make_context(allow_unregistered=True)
    module = parse_module(context, text, "f.mlir")
    run_stage(context, module, Stage("last", "", form))


def test_form_accepts_dialects_and_single_operations():
    form = Form(frozenset({"builtin", "torch"}), frozenset({"func.func", "func.return"}))
    checked('func.func @f() {\n  "torch.aten.mm"() : () -> ()\n  func.return\n}', form)


@pytest.mark.parametrize("name", ["torch.aten.mm", "test.op"])
def test_form_rejects_what_it_does_not_list(name):
    with pytest.raises(FormError, match=f"operation '{name}' may not exist in stage 'last'") as e:
        checked(f'func.func @f() {{\n  "{name}"() : () -> ()\n  func.return\n}}', FUNCTIONS)
    assert e.value.location == SourceLocation("f.mlir", 2, 3)
    assert e.value.accepted == "builtin.*, func.*"


FUNCTIONS = Form(frozenset({"builtin", "func"}))


def test_form_rules_are_asked_of_every_operation():
    def no_calls(operation):
        return "a call may not be" if operation.name == "func.call" else None

    form = Form(frozenset({"builtin", "func"}), rules=(lambda operation: None, no_calls))
    text = "func.func @f() {\n  func.call @f() : () -> ()\n  func.return\n}"
    with pytest.raises(FormError, match="a call may not be in stage 'last'"):
        checked(text, form)
