"""Integer products at every instruction-set level, emulated where this host lacks it: all exact."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.cpu.isa import LEVELS, X86_64_V3, FourWay, Pairwise
from nybble.backends.cpu.kernels.matmul import Codes, MatmulSpec
from nybble.backends.cpu.kernels.matmul.intdot import (
    BytePairsDot,
    FourWayDot,
    GenericDot,
    WordPairsDot,
    int_dot,
)

SPECS = [
    MatmulSpec(codes, (17,), 64, tokens, activation_group=codes.group, digits=digits)
    for codes, digits, tokens in (
        (Codes(4, 32, 8), 1, 1),
        (Codes(8, 32, 128), 2, 1),
        (Codes(2, 64, 2), 1, 1),
        (Codes(1, 64, 1), 2, 1),
        (Codes(4, 32, 8), 2, 3),
        (Codes(8, 32), 1, 3),
    )
]
TESTED_ELSEWHERE = ("x86-64-v3", "avx512-vnni", "amx")
"""By test_gemv and test_gemm, with many more weights."""
EDGES = {1: ((127,), (-127,)), 2: ((127, 0), (-127, 0), (-127, 127), (126, -128))}


@pytest.fixture(scope="module", params=[n for n in LEVELS if n not in TESTED_ELSEWHERE])
def run(request, matmuls):
    return matmuls([replace(spec, isa=LEVELS[request.param]) for spec in SPECS])


def test_exact_at_random_and_at_the_edges(run, rng):
    for index, spec in enumerate(run.specs):
        draws = [None, *EDGES[spec.digits]]
        for draw in draws:
            problem = run.problem(index, spec.tokens, rng, integers=True)
            q = problem.inputs["q"]
            codes = problem.weights[0].codes
            if draw is not None:
                q[:] = np.array(draw).reshape((*q.shape[:-2], 1, 1))
                codes[::2] = 2**spec.weight.bits - 1
            digits = q.astype(np.int64).reshape(spec.digits, spec.tokens, spec.cols)
            numbers = digits[0] if spec.digits == 1 else 256 * digits[0] + digits[1]
            shape = (spec.tokens, -1, spec.activation_group)
            problem.inputs["z"][:] = numbers.reshape(shape).sum(-1)
            parts = (codes.astype(np.int64) - spec.weight.zero_point).reshape(
                len(codes), *shape[1:]
            )
            dots = np.einsum("ngk,rgk->gnr", numbers.reshape(shape), parts)
            want = np.zeros(dots.shape[1:], np.float32)
            for group in dots:
                want = want + group.astype(np.float32)
            (got,) = run(problem)
            np.testing.assert_array_equal(got, want, str((spec, draw)))


def test_forms_by_level():
    for level in LEVELS.values():
        for bits in range(1, 9):
            width = next(w for w in (1, 2, 4, 8) if w >= bits)
            dot = int_dot(level, width, 1, 2**bits - 1)
            if isinstance(level.int_dot, FourWay):
                assert isinstance(dot, FourWayDot)
            elif isinstance(level.int_dot, Pairwise):
                assert isinstance(dot, BytePairsDot if bits < 8 else WordPairsDot)
            else:
                assert isinstance(dot, GenericDot)


@pytest.mark.parametrize("bits", range(1, 8))
def test_run_never_leaves_16_bits(bits):
    stored = next(w for w in (1, 2, 4, 8) if w >= bits)
    for width in {stored, 8}:
        dot = int_dot(X86_64_V3, width, 2, 2**bits - 1)
        places = 4 // min(width, 4)
        steepest = (2**bits - 1) << (4 - width if width < 4 else 0)
        added = dot.run * dot.planes // places
        assert added >= 1
        assert added * 2 * 128 * steepest < 2**15
