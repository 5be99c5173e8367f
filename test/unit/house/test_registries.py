"""Registries: every row loads and is what it says; nothing is unregistered or untested."""

import ast

import pytest

from nybble.dialects.errors import UnknownNameError
from nybble.dialects.loading import Registry
from nybble.dialects.registry import DIALECTS, make_context
from nybble.dialects.registry import REGISTRY as DIALECT_REGISTRY
from nybble.passes.pipeline import build_pipeline
from nybble.passes.registry import PASSES, load_pass
from nybble.passes.stages import STAGES


@pytest.mark.parametrize("name", DIALECTS)
def test_dialect(name, root):
    assert DIALECT_REGISTRY.load(name).name == name
    tests = root / "test/filecheck/dialects" / name
    assert (tests / "ops.mlir").is_file()
    assert (tests / "verify.mlir").is_file()


@pytest.mark.parametrize("name", PASSES)
def test_pass(name, root):
    kind = load_pass(name)
    stem = name.replace("-", "_")
    assert kind.name == name
    assert kind.__module__.endswith(f".{stem}")
    assert kind.__doc__
    assert kind.__dataclass_params__.frozen
    assert (root / f"test/filecheck/passes/{name}.mlir").is_file()


def test_every_dialect_and_pass_has_a_row(sources):
    rows = {*DIALECTS.values(), *PASSES.values()}
    found = {row for source in sources for row in registrable(source)}
    assert found - rows == set()
    assert len(found) > 0


def registrable(source):
    """module:Object of each dialect and pass that a file defines at its top."""
    for node in source.tree.body:
        if is_pass(node):
            yield f"{source.module}:{node.name}"
        elif is_dialect(node):
            yield f"{source.module}:{ast.unparse(node.targets[0])}"


def is_pass(node):
    """A class derived from ModulePass itself that has a name."""
    return (
        isinstance(node, ast.ClassDef)
        and "ModulePass" in map(ast.unparse, node.bases)
        and any(isinstance(item, ast.Assign) for item in node.body)
    )


def is_dialect(node):
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "Dialect"
    )


def test_a_pass_without_a_row_is_found(make_source):
    text = 'class A(ModulePass):\n    name = "a"\nB = Dialect("b")\n'
    assert list(registrable(make_source("passes/c.py", text))) == [
        "nybble.passes.c:A",
        "nybble.passes.c:B",
    ]


def test_stages_have_unique_names_and_known_passes():
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len(names)
    for stage in STAGES:
        build_pipeline(stage.passes)


def test_context_loads_nothing_by_itself():
    context = make_context()
    assert set(DIALECTS) < set(context.registered_dialect_names)
    assert list(context.loaded_dialects) == []
    assert context.get_optional_op("no.such") is None


def test_unknown_name_gives_the_near_ones():
    registry = Registry("pass", {"fuse-kernels": "a:B"}, lambda found: True)
    with pytest.raises(UnknownNameError, match="unknown pass 'fuse-kernel'") as fault:
        registry.load("fuse-kernel")
    assert fault.value.accepted == "fuse-kernels"


def test_row_of_another_kind_is_our_fault():
    registry = Registry("pass", {"a": "math:pi"}, lambda found: isinstance(found, str))
    with pytest.raises(TypeError, match=r"math:pi is registered as pass 'a' but is not one"):
        registry.load("a")
