"""Products of bit planes: exact integers for every pair of widths, on every instruction set."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.bit_planes import pack_planes, words_of_codes
from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.emulate import compile_runnable
from nybble.backends.cpu.isa import AMX, AVX512_VNNI, NEON, X86_64_V3, X86_64_V4
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec, Planes, largest_group
from nybble.backends.cpu.kernels.matmul.bitserial_lower import bitserial_buffers, lower_bitserial
from nybble.backends.cpu.kernels.matmul.spec import MatmulError
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import for_level
from nybble.dialects.lowbit.formats import Weight

LEVELS = [X86_64_V3, X86_64_V4, AVX512_VNNI, AMX, NEON]
NUMPY = {"i32": np.int32, "f32": np.float32, "i8": np.int8}
GUARD = 64
SHAPES = [(70, 256, 128), (1, 100, 100), (65, 96, 48), (3, 1184, 1184), (130, 64, 64)]
SHAPES += [(16, 4096, 4096), (64, 21, 7)]
"""(rows, columns, group)"""
TOKENS = (1, 3, 1, 17)
WIDTHS = range(1, 9)


def specs_of(weight_bits):
    """A kernel for each width of activations: shapes and numbers of tokens take turns."""
    for bits in WIDTHS:
        rows, cols, group = SHAPES[(2 * weight_bits + bits) % len(SHAPES)]
        weight = Planes(weight_bits, group, 0.5, weight_bits - 4, has_zero=bits % 2 == 0)
        tokens = TOKENS[(weight_bits + bits) % len(TOKENS)]
        yield BitserialSpec(weight, (rows,), cols, bits, tokens, threads=2)


@cache
def library(specs):
    module = ModuleOp([lower_bitserial(spec, f"k{i}") for i, spec in enumerate(specs)])
    module.verify()
    return load([compile_runnable(module, specs[0].isa)])


@cache
def rough_library(specs):
    """The same, optimized less: there are many of them."""
    module = ModuleOp([lower_bitserial(spec, f"k{i}") for i, spec in enumerate(specs)])
    return load([compile_module(module, for_level(specs[0].isa), opt=1)])


def bipolar(codes, bits):
    return 2 * codes.astype(np.int64) - (2**bits - 1)


@dataclass
class Problem:
    """Random operands of a spec. ones: whether scales are 1 and zeros 0, so that all is exact."""

    spec: BitserialSpec
    n: int
    rng: np.random.Generator
    ones: bool = False

    def __post_init__(self):
        spec, weight = self.spec, self.spec.weight
        self.codes = self.rng.integers(0, 2**spec.bits, (self.n, spec.cols)).astype(np.uint8)
        self.scale = self.floats((self.n, spec.groups))
        self.sums = self.grouped(bipolar(self.codes, spec.bits)).sum(axis=2)
        self.weights = [
            Weight(
                "made up",
                self.rng.integers(0, 2**weight.bits, (rows, spec.cols)).astype(np.uint8),
                self.floats((rows, spec.groups)),
                zero=self.floats((rows, spec.groups), 0) if weight.has_zero else None,
            )
            for rows in spec.rows
        ]
        self.biases = [self.floats((rows,)) for rows in spec.rows if spec.bias]
        self.held = [self.floats((self.n, rows)) for rows in spec.outputs if spec.residual]

    def floats(self, shape, exact=1):
        values = np.full(shape, exact) if self.ones else self.rng.standard_normal(shape)
        return values.astype(np.float16).astype(np.float32)

    def grouped(self, values):
        return values.reshape(len(values), self.spec.groups, -1)

    def expected(self):
        """f64 outputs."""
        spec, weight = self.spec, self.spec.weight
        x = self.grouped(bipolar(self.codes, spec.bits)).transpose(1, 0, 2)
        parts = []
        for part in self.weights:
            w = self.grouped(bipolar(part.codes, weight.bits) + weight.offset).transpose(1, 2, 0)
            dots = (x @ w) * weight.unit * self.scale.T[:, :, None].astype(np.float64)
            total = (dots * part.scale.T[:, None]).sum(axis=0)
            if part.zero is not None:
                total += (self.sums * self.scale.astype(np.float64)) @ part.zero.T
            parts.append(total)
        parts = [p + b for p, b in zip(parts, self.biases, strict=True)] if spec.bias else parts
        if spec.glu:
            parts = [gate(parts[0], spec.glu) * parts[1]]
        return [p + h for p, h in zip(parts, self.held, strict=True)] if spec.residual else parts

    def inputs(self):
        words = words_of_codes(self.codes, self.spec.bits, self.spec.weight.group)
        given = {"q": words.view(np.int32), "s": self.scale, "z": self.sums.astype(np.int32)}
        for i, (weight, layout) in enumerate(zip(self.weights, self.spec.layouts, strict=True)):
            given[f"w{i}"] = pack_planes(weight, layout).view(np.int8)
        given |= {f"b{i}": bias for i, bias in enumerate(self.biases)}
        return given | {f"y{i}": held for i, held in enumerate(self.held)}


def gate(x, name):
    if name == "silu":
        return x / (1 + np.exp(-x))
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def guarded(buffer, values):
    dtype = NUMPY[str(buffer.dtype)]
    whole = np.full(buffer.size + 2 * GUARD, np.nan if dtype is np.float32 else 77, dtype)
    if values is not None:
        whole[GUARD : GUARD + values.size] = values.reshape(-1)
    return whole


def run(specs, problem, library=library):
    """Outputs [n, rows], computed by two threads; what must not be touched is checked."""
    spec, given = problem.spec, problem.inputs()
    buffers = bitserial_buffers(spec)
    wholes = [guarded(buffer, given.get(buffer.name)) for buffer in buffers]
    arrays = [whole[GUARD:-GUARD] for whole in wholes]
    for thread in range(2):
        library(specs).call(f"k{specs.index(spec)}", *arrays, problem.n, 0, thread, 2)
    outputs = []
    for whole, buffer in zip(wholes, buffers, strict=True):
        fresh = guarded(buffer, None)
        for edge in (slice(None, GUARD), slice(-GUARD, None)):
            np.testing.assert_array_equal(whole[edge], fresh[edge], buffer.name)
        if buffer.name.startswith("y"):
            rows = whole[GUARD:-GUARD].reshape(spec.padded, -1)
            assert np.isnan(rows[problem.n :]).all(), "padding rows of an output"
            outputs.append(rows[: problem.n])
    return outputs


@pytest.mark.parametrize("bits", WIDTHS)
def test_integers_are_exact_for_every_pair_of_widths(rng, bits):
    specs = tuple(specs_of(bits))
    for spec in specs:
        problem = Problem(spec, spec.tokens, rng, ones=True)
        for got, want in zip(run(specs, problem, rough_library), problem.expected(), strict=True):
            np.testing.assert_array_equal(got, want.astype(np.float32))


FEATURES = [
    BitserialSpec(Planes(2, 64), (65, 65), 128, 2, glu="silu"),
    BitserialSpec(Planes(2, 64), (65, 65), 128, 2, glu="gelu_tanh", tokens=5),
    BitserialSpec(Planes(1, 96, scale="f32"), (70, 1), 96, 1, bias=True, tokens=33),
    BitserialSpec(Planes(3, 32, 0.5, -1, has_zero=True), (66,), 64, 2, residual=True),
    BitserialSpec(Planes(1, 512, 0.5, -1), (66, 3), 1024, 3, residual=True, tokens=16),
]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("index", range(len(FEATURES)))
def test_product_with_what_is_fused(rng, level, index):
    specs = tuple(replace(spec, threads=2, isa=level) for spec in FEATURES)
    problem = Problem(specs[index], specs[index].tokens, rng)
    for got, want in zip(run(specs, problem), problem.expected(), strict=True):
        assert np.square(got - want).sum() <= 1e-11 * np.square(want).sum()


def test_fewer_rows_than_there_is_room_for(rng):
    specs = tuple(replace(spec, threads=2) for spec in FEATURES)
    problem = Problem(specs[2], 7, rng)
    for got, want in zip(run(specs, problem), problem.expected(), strict=True):
        assert np.square(got - want).sum() <= 1e-11 * np.square(want).sum()


@pytest.mark.parametrize(
    ("bits", "group", "fault"),
    [
        (9, 64, "activations of 9 bits in planes .*1 to 8 bits"),
        (8, 32768, "groups of 32768 columns of 8 bits by 8 .*at most 16512"),
    ],
)
def test_what_no_kernel_computes(bits, group, fault):
    with pytest.raises(MatmulError, match=fault):
        BitserialSpec(Planes(8, group), (1,), group, bits)


def test_the_largest_group_fits_32_bits():
    for weight, activation in ((1, 1), (8, 8), (2, 4)):
        most = 2 * (2**weight - 1) * (2**activation - 1)
        group = largest_group(weight, activation)
        assert group * most < 2**31 <= (group + 1) * most
