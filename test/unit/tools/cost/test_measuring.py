"""The process that measures: kernels that crash or hang are failures, and others go on."""

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, f32
from nybble.tools.cost.measuring import Measurer
from nybble.tools.cost.worker import Batch, Turn


def _kernel(name: str, value: float, far: int = 0) -> FuncOp:
    """Stores a number `far` elements behind a buffer."""
    b = KernelBuilder(name, [BufferSpec("y", 16, f32)])
    (y,) = b.buffers
    with b.for_(b.n - b.n, b.n) as loop:
        y.store(b.const(value, f32), loop.iv * far if far else loop.iv)
    return b.finish()


def _endless(name: str) -> FuncOp:
    b = KernelBuilder(name, [BufferSpec("y", 16, f32)])
    (y,) = b.buffers
    with b.for_(0, 1 << 50) as loop:
        y.store(b.const(1.0, f32), loop.iv % 16)
    return b.finish()


@pytest.fixture(scope="module")
def batch() -> Batch:
    """A good kernel, one that crashes, a wrong one, one that takes hours."""
    functions = [_kernel("good", 1.0), _kernel("bad", 1.0, 1 << 40), _kernel("wrong", 2.0)]
    functions.append(_endless("slow"))
    data = compile_module(ModuleOp(functions), opt=0)
    turns = tuple(Turn(name, (16,), 8, 1) for name in ("good", "bad", "wrong", "slow", "good"))
    return Batch((data,), ("float32",), {}, (0,), turns, 2, 0)


def test_a_crash_and_a_hang_are_failures(batch: Batch):
    with Measurer(hang=3.0) as measurer:
        found = measurer.measure(batch)
    assert found.failures[1] == "crashes: SIGSEGV"
    assert found.failures[2].startswith("wrong result")
    assert found.failures[3].startswith("hangs")
    assert sorted(found.seconds) == [0, 4]
    assert all(len(taken) == 2 and min(taken) > 0 for taken in found.seconds.values())
