"""What machines without FMA and F16C compute instead, against numpy, with their instructions."""

import numpy as np
import pytest
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import ModuleOp, bf16, f16, f32

from nybble.backends.cpu import isa
from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.expand import expanded
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, vec
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import for_level, native

OLD, NEW = for_level(isa.get("x86-64-v2")), for_level(isa.get("x86-64-v3"))
LANES = 8
needs_x86 = pytest.mark.skipif(not native().runs(OLD), reason="no x86-64-v2 here")


def loop(count, types, body):
    """A module with f(x0, .., y), which does `body` to LANES numbers at a time."""
    specs = [BufferSpec(f"x{i}", count, one) for i, one in enumerate(types[:-1])]
    b = KernelBuilder("f", [*specs, BufferSpec("y", count, types[-1])])
    with b.for_(0, count, LANES) as step:
        found = body(b, *(b.buffer(spec.name).vload(step.iv, LANES) for spec in specs))
        b.buffer("y").vstore(found, step.iv)
    return ModuleOp([b.finish()])


def converted(values, source, target, result):
    """What the old machine makes of some floats, whose number is a multiple of LANES."""
    module = loop(len(values), [source, target], lambda b, x: b.to_float(x, target))
    out = np.zeros(len(values), result)
    load([compile_module(module, OLD)]).call("f", values, out)
    return out


@needs_x86
def test_every_half_float_becomes_the_same_float():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    found = converted(halves, f16, f32, np.float32)
    assert np.array_equal(found, halves.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(halves))


@needs_x86
def test_floats_become_the_nearest_half_floats():
    halves = np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = np.append((halves[:-1] + halves[1:]) / 2, np.float32(65520))
    beside = [np.nextafter(between, np.float32(to)) for to in (0, np.inf)]
    odd = np.float32([np.inf, np.nan, 65519.996, 65536, 3e38, 1e-45, 2.0**-25, 2.0**-24])
    nan = np.array([0x7F800001], np.uint32).view(np.float32)
    several = np.concatenate([nan, halves, between, *beside, odd])
    values = np.concatenate([several, -several])
    values = values[: len(values) // LANES * LANES]
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(np.float16)
    found = converted(values, f32, f16, np.float16)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(expected))


@needs_x86
def test_products_and_sums_are_two_steps():
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=64).astype(np.float32) for _ in range(3))
    module = loop(64, [f32] * 4, lambda e, x, y, z: e.fma(x, y, z))
    out = np.zeros(64, np.float32)
    load([compile_module(module, OLD)]).call("f", a, b, c, out)
    assert np.array_equal(out, a * b + c)


def test_what_a_machine_has_is_left_alone():
    module = loop(64, [f16, f32], lambda b, x: b.fma(*[b.to_float(x)] * 3))
    assert expanded(module, NEW) is module
    left = {type(op) for op in expanded(module, OLD).walk()}
    assert not left & {math.FmaOp, arith.ExtFOp}
    assert {math.FmaOp, arith.ExtFOp} <= {type(op) for op in module.walk()}


def test_other_conversions_stay():
    module = loop(64, [bf16, f32], lambda b, x: b.to_float(x))
    assert any(isinstance(op, arith.ExtFOp) for op in expanded(module, OLD).walk())
    assert vec(LANES, bf16) in {
        op.input.type for op in expanded(module, OLD).walk() if isinstance(op, arith.ExtFOp)
    }
