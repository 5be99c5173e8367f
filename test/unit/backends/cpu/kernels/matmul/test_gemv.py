"""One token: integer dot products on every instruction set, and the f32 form."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.cpu.isa import AVX512_VNNI, X86_64_V3
from nybble.backends.cpu.kernels.matmul import Codes, Dense, MatmulSpec

LEVELS = [AVX512_VNNI, X86_64_V3]
INT8 = {
    "q4_0": MatmulSpec(Codes(4, 32, 8), (128,), 96),
    "q4_1 parts, bias": MatmulSpec(Codes(4, 32, 0, True), (70, 1, 64), 64, bias=True),
    "q8_0 residual": MatmulSpec(Codes(8, 32, 128), (64,), 96, residual=True),
    "odd numbers of tiles": MatmulSpec(Codes(4, 32, 8), (300, 130), 96),
    "one bit, one row": MatmulSpec(Codes(1, 32), (1,), 32),
    "two bits, silu": MatmulSpec(Codes(2, 64, 1), (65, 65), 128, activation_group=64, glu="silu"),
    "group 512 of 32, gelu": MatmulSpec(
        Codes(4, 512, 8, True, "f32"), (16, 16), 1024, glu="gelu_tanh"
    ),
    "group 512": MatmulSpec(Codes(3, 512, 4, True), (64,), 512, activation_group=512),
}
TWO_DIGITS = {f"{name}, two digits": replace(spec, digits=2) for name, spec in INT8.items()}
EXTREMES = {
    (bits, zero_point): MatmulSpec(
        Codes(bits, 256, zero_point), (65,), 256, activation_group=256, digits=2
    )
    for bits, zero_point in ((1, 0), (2, 1), (3, 4), (4, 8), (8, 0), (8, 128))
}
F32 = {
    "q4_1": MatmulSpec(Codes(4, 32, 0, True), (65, 1), 96, activations="f32"),
    "q8_0, group 256": MatmulSpec(Codes(8, 256, 128), (64,), 256, activations="f32"),
    "f32, odd": MatmulSpec(Dense("f32"), (70,), 37, activations="f32", residual=True),
    "bf16": MatmulSpec(Dense("bf16"), (64, 64), 40, activations="f32", glu="silu"),
    "f16": MatmulSpec(Dense("f16"), (3,), 4, activations="f32", bias=True),
}
SPECS = {**INT8, **TWO_DIGITS, **F32}
NAMES = [*SPECS]


def at(level, specs=SPECS):
    return [replace(spec, isa=level) for spec in specs.values()]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("name", NAMES)
def test_product(matmuls, rng, error, level, name):
    run = matmuls(at(level))
    problem = run.problem(NAMES.index(name), 1, rng)
    for got, want in zip(run(problem), problem.expected(), strict=True):
        assert error(got, want) < 1e-11


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_integers_are_exact(matmuls, rng, level):
    run = matmuls(at(level))
    for name in ("q4_0", "q8_0 residual", "odd numbers of tiles", "one bit, one row", "group 512"):
        problem = run.problem(NAMES.index(name), 1, rng, integers=True)
        for i in range(len(problem.spec.rows) if problem.spec.residual else 0):
            problem.inputs[f"y{i}"][:] = 3
        for got, want in zip(run(problem), problem.expected(), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_two_digits_at_the_edges_of_their_range(matmuls, rng, level):
    run = matmuls(at(level, EXTREMES))
    for index, spec in enumerate(EXTREMES.values()):
        for pair in ((127, 0), (-127, 0), (-127, 127), (126, -128), (-1, -1)):
            problem = run.problem(index, 1, rng, integers=True)
            codes, q = problem.weights[0].codes, problem.inputs["q"]
            codes[:, 1:] = 2**spec.weight.bits - 1
            q[:] = np.array(pair).reshape(2, 1, 1)
            q[:, :, :5] = rng.integers(-127, 128, (2, 1, 5))
            numbers = 256 * q[0].astype(np.int64) + q[1]
            problem.inputs["z"][:] = numbers.sum()
            want = numbers @ (codes.astype(np.int64).T - spec.weight.zero_point)
            (got,) = run(problem)
            np.testing.assert_array_equal(got, want.astype(np.float32))


def test_levels_agree_bit_for_bit(matmuls, rng):
    fast, plain = (matmuls(at(level)) for level in LEVELS)
    for index in range(len(INT8) + len(TWO_DIGITS)):
        problem = fast.problem(index, 1, rng)
        if problem.spec.glu:
            continue
        twin = plain.problem(index, 1, rng)
        twin.weights, twin.inputs = problem.weights, problem.inputs
        for one, other in zip(fast(problem), plain(twin), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("threads", [2, 3, 4, 7])
def test_threads_change_nothing(matmuls, rng, level, threads):
    run = matmuls(at(level))
    for index in range(len(NAMES)):
        problem = run.problem(index, 1, rng)
        for one, other in zip(run(problem), run(problem, threads), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["q4_1 parts, bias", "q4_1"])
def test_zero_groups(matmuls, rng, name):
    run = matmuls(at(LEVELS[0]))
    problem = run.problem(NAMES.index(name), 1, rng)
    for values in problem.inputs.values():
        values[:] = 0
    for got in run(problem):
        np.testing.assert_array_equal(got, np.zeros_like(got))


@pytest.mark.parametrize("name", ["q4_0", "q4_1"])
def test_scales_at_the_edge_of_f16(matmuls, rng, error, name):
    run = matmuls(at(LEVELS[0]))
    problem = run.problem(NAMES.index(name), 1, rng)
    weight = problem.weights[0]
    weight.scale[:] = np.float16(6e-8)
    if weight.zero is not None:
        weight.zero[:] = 0
    weight.scale[5, 1] = np.inf
    (want, *_), (got, *_) = problem.expected(), run(problem)
    others = np.arange(len(want[0])) != 5
    assert not np.isfinite(got[0, 5])
    assert error(got[0, others], want[0, others]) < 1e-11
