"""Many tokens: integer dot products, f32 and AMX products, with ragged counts of everything."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.cpu.isa import AMX, AVX512_VNNI, X86_64_V3
from nybble.backends.cpu.kernels.matmul import Codes, Dense, MatmulSpec

TOKENS = 48
SPECS = {
    "q4_0": MatmulSpec(Codes(4, 32, 8), (128,), 64, TOKENS),
    "q4_1 parts, bias": MatmulSpec(Codes(4, 32, 0, True), (65, 1, 64), 1056, TOKENS, bias=True),
    "q8_0 residual": MatmulSpec(Codes(8, 32, 128), (64,), 640, TOKENS, residual=True),
    "two bits, silu": MatmulSpec(
        Codes(2, 256, 1), (192, 192), 512, TOKENS, activation_group=64, glu="silu"
    ),
    "group 512": MatmulSpec(Codes(4, 512, 1, True), (64,), 1024, TOKENS, activation_group=512),
}
TWO_DIGITS = {
    f"{name}, two digits": replace(SPECS[name], digits=2)
    for name in ("q4_1 parts, bias", "q8_0 residual", "two bits, silu", "group 512")
}
F32 = {
    "q4_1 f32": MatmulSpec(Codes(4, 32, 0, True), (65, 1), 96, TOKENS, "f32"),
    "bf16 odd": MatmulSpec(Dense("bf16"), (64,), 37, TOKENS, "f32", residual=True),
    "f16": MatmulSpec(Dense("f16"), (64, 64), 64, TOKENS, "f32", glu="gelu_tanh"),
}
ROUNDED = {
    "bf16 weights": MatmulSpec(Dense("bf16"), (70,), 64, TOKENS, "bf16"),
    "group 16": MatmulSpec(Codes(4, 16, 3, True), (64,), 96, TOKENS, "bf16", residual=True),
}
ALL = {**SPECS, **TWO_DIGITS, **F32}
EXACT = [*ALL]
TILED = [*SPECS, *ROUNDED]


def exact_at(level):
    return [replace(spec, isa=level) for spec in ALL.values()]


def tiled():
    specs = (*SPECS.values(), *ROUNDED.values())
    return [replace(spec, isa=AMX, activations="bf16") for spec in specs]


@pytest.mark.parametrize("level", [AVX512_VNNI, X86_64_V3], ids=lambda level: level.name)
@pytest.mark.parametrize("name", EXACT)
def test_product(matmuls, rng, error, level, name):
    run = matmuls(exact_at(level))
    for n in (1, 2, 15, 17, 33, 48):
        problem = run.problem(EXACT.index(name), n, rng)
        for got, want in zip(run(problem, 2), problem.expected(), strict=True):
            assert error(got, want) < 1e-11


@pytest.mark.parametrize("name", TILED)
def test_tiles(matmuls, rng, error, name):
    run = matmuls(tiled())
    for n in (1, 2, 15, 17, 33, 48):
        problem = run.problem(TILED.index(name), n, rng)
        for got, want in zip(run(problem, 2), problem.expected(), strict=True):
            assert error(got, want) < 3e-5


@pytest.mark.parametrize("level", [AMX, AVX512_VNNI, X86_64_V3], ids=lambda level: level.name)
def test_integers_are_exact(matmuls, rng, level):
    run = matmuls(exact_at(level))
    for name in ("q4_0", "group 512"):
        problem = run.problem(EXACT.index(name), 17, rng, integers=True)
        for got, want in zip(run(problem), problem.expected(), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("level", [AVX512_VNNI, X86_64_V3], ids=lambda level: level.name)
def test_two_digits_are_exact(matmuls, rng, level):
    spec = MatmulSpec(
        Codes(8, 256, 128), (65,), 256, TOKENS, activation_group=256, digits=2, isa=level
    )
    run = matmuls([spec])
    problem = run.problem(0, 17, rng, integers=True)
    q = problem.inputs["q"]
    q[0, :4], q[1, :4] = -127, 0
    numbers = 256 * q[0].astype(np.int64) + q[1]
    problem.inputs["z"][:, 0] = numbers.sum(axis=1)
    problem.weights[0].codes[:5] = 255
    problem.weights[0].codes[5:9] = 0
    want = numbers @ (problem.weights[0].codes.astype(np.int64).T - 128)
    (got,) = run(problem)
    np.testing.assert_array_equal(got, want.astype(np.float32))


@pytest.mark.parametrize("level", [AMX, AVX512_VNNI, X86_64_V3], ids=lambda level: level.name)
@pytest.mark.parametrize("threads", [2, 3, 4, 5])
def test_threads_change_nothing(matmuls, rng, level, threads):
    run = matmuls(tiled() if level.tiles else exact_at(level))
    for index in range(len(run.specs)):
        problem = run.problem(index, 17, rng)
        for one, other in zip(run(problem), run(problem, threads), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("level", [AMX, AVX512_VNNI], ids=lambda level: level.name)
def test_no_tokens(matmuls, rng, level):
    run = matmuls(tiled() if level.tiles else exact_at(level))
    for got in run(run.problem(0, 0, rng)):
        assert got.size == 0


@pytest.mark.parametrize("level", [AMX, AVX512_VNNI], ids=lambda level: level.name)
def test_infinite_scale_stays_in_its_row(matmuls, rng, level):
    run = matmuls(tiled() if level.tiles else exact_at(level))
    problem = run.problem(EXACT.index("q4_0"), 17, rng)
    problem.weights[0].scale[5, 1] = np.inf
    (got,) = run(problem)
    finite = np.isfinite(got)
    assert not finite[:, 5].any()
    assert np.delete(finite, 5, axis=1).all()
