"""Runs nybble-opt inside the test process, as its users see it: bytes in, bytes and a code out."""

import io
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
from xdsl.dialects.builtin import UnitAttr
from xdsl.dialects.func import ReturnOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.passes.registry import PASSES
from nybble.tools import opt


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_opt(monkeypatch, capsysbinary):
    """A function (arguments, stdin=b"") -> Outcome."""

    def run(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            opt.main(arguments)
        captured = capsysbinary.readouterr()
        return Outcome(left.value.code, captured.out.decode(), captured.err.decode())

    return run


@dataclass(frozen=True)
class MarkPass(ModulePass):
    """Gives the module an attribute."""

    name = "test-mark"
    label: str = "marked"
    times: int = 1

    def apply(self, ctx, op):
        op.attributes[self.label] = UnitAttr()


@dataclass(frozen=True)
class IdlePass(ModulePass):
    """Changes nothing."""

    name = "test-idle"

    def apply(self, ctx, op):
        pass


@dataclass(frozen=True)
class CrashPass(ModulePass):
    """Raises what no caller expects."""

    name = "test-crash"

    def apply(self, ctx, op):
        raise KeyError("lost")


@dataclass(frozen=True)
class BreakPass(ModulePass):
    """Leaves IR that does not verify."""

    name = "test-break"

    def apply(self, ctx, op):
        op.body.block.add_op(ReturnOp())


@dataclass(frozen=True)
class RejectPass(ModulePass):
    """Finds the first operation wanting."""

    name = "test-reject"

    def apply(self, ctx, op):
        first = op.body.block.first_op
        raise NybbleError(f"'{first.name}' will not do", location=location_of(first))


@dataclass(frozen=True)
class FailPass(ModulePass):
    """Fails in the way xDSL has for it."""

    name = "test-fail"

    def apply(self, ctx, op):
        raise PassFailedException("no way")


@dataclass(frozen=True)
class InterruptPass(ModulePass):
    """Is interrupted from the keyboard."""

    name = "test-interrupt"

    def apply(self, ctx, op):
        raise KeyboardInterrupt


@pytest.fixture
def passes_for_tests(monkeypatch):
    """Registers the passes above under their names."""
    module = ModuleType("passes_for_tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for kind in (MarkPass, IdlePass, CrashPass, BreakPass, RejectPass, FailPass, InterruptPass):
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(PASSES, kind.name, f"{module.__name__}:{kind.__name__}")
