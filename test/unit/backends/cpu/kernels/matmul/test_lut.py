"""Products by lookup tables: equal to the reference and to the integer product on every level."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu import lut_packing, packing
from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.emulate import compile_runnable
from nybble.backends.cpu.isa import AVX512_VBMI, LEVELS, NEON, X86_64_V3, X86_64_V4, Permute
from nybble.backends.cpu.kernels.matmul import Codes, MatmulError, MatmulSpec, lower_matmul
from nybble.backends.cpu.kernels.matmul.lut import lower_lut
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.tables import BuildTables
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import for_level
from nybble.backends.cpu.tile_layout import LayoutError, TileLayout
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.numpy_ref.lookup import build_tables, code_sums
from nybble.dialects.numpy_ref.quantize import quantize_rows

GUARD = 64
LEVELS_RUN = [
    (X86_64_V3, "lut1"),
    (X86_64_V4, "lut1"),
    (NEON, "lut1"),
    (AVX512_VBMI, "lut4"),
]
SHAPES = {
    "one bit, one row": LutSpec(Codes(1, 32, 1, step=2), (1,), 32),
    "ternary, residual": LutSpec(
        Codes(2, 256, 1), (65,), 512, activation_group=256, residual=True
    ),
    "three bits, parts, bias": LutSpec(
        Codes(3, 64, 4), (70, 1), 192, activation_group=64, bias=True
    ),
    "four bits, minimum": LutSpec(Codes(4, 96, 0, True, "f32"), (64,), 96, activation_group=32),
    "bipolar, tokens": LutSpec(Codes(2, 64, 3, step=2), (66,), 128, 5, activation_group=64),
    "silu, tokens": LutSpec(
        Codes(2, 512, 2, True), (33, 33), 512, 3, activation_group=256, glu="silu"
    ),
}  # fmt: skip
FORMS = {
    "exact, half": {"exact": True, "symmetric": True},
    "exact, full": {"exact": True, "symmetric": False},
    "rounded, half": {"exact": False, "symmetric": True},
    "rounded, full": {"exact": False, "symmetric": False},
}
CASES = {
    f"{name}, {form}": replace(spec, **FORMS[form])
    for i, (name, spec) in enumerate(SHAPES.items())
    for form in ("exact, half", [*FORMS][1 + i % 3])
}


def at(isa, order):
    return tuple(replace(spec, isa=isa, order=order) for spec in CASES.values())


@cache
def library(isa, order):
    """k0, t0, k1, t1, ..: the products of all cases on a level, and what builds their tables."""
    functions = []
    for i, spec in enumerate(at(isa, order)):
        functions += [lower_lut(spec, f"k{i}"), BuildTables(spec.tables).build(f"t{i}")]
    return load([compile_runnable(ModuleOp(functions), isa)])


class Case:
    """Random inputs of a specification, and what it should make of them in f64."""

    def __init__(self, spec, rng, n=None):
        self.spec, self.n = spec, n or spec.tokens
        self.weights = [self._weight(rng, rows) for rows in spec.rows]
        x = rng.standard_normal((self.n, spec.cols)).astype(np.float32)
        self.q, self.s, self.z = quantize_rows(x, spec.activation_group)
        self.given = {
            f"{name}{i}": rng.standard_normal(shape).astype(np.float32)
            for i, rows in enumerate(spec.rows)
            for name, shape in (("b", rows), ("y", (self.n, rows)))
            if (spec.bias, spec.residual)[name == "y"]
        }

    def _weight(self, rng, rows):
        kind, cols = self.spec.weight, self.spec.cols

        def scales():
            dtype = np.float16 if kind.scale == "f16" else np.float32
            values = rng.standard_normal((rows, cols // kind.group))
            return values.astype(dtype).astype(np.float32)

        codes = rng.integers(0, 2**kind.bits, (rows, cols)).astype(np.uint8)
        zero = scales() if kind.has_zero else None
        return Weight("made up", codes, scales(), zero=zero, zero_point=kind.zero_point)

    def reference(self):
        """f64 outputs, out of the reference's tables."""
        spec = self.spec
        tables = build_tables(
            self.q.astype(np.int32), self.s, symmetric=spec.symmetric, exact=spec.exact
        )
        parts = [self._product(weight, tables) for weight in self.weights]
        parts = [part + self.given.get(f"b{i}", 0) for i, part in enumerate(parts)]
        if spec.glu:
            parts = [parts[0] / (1 + np.exp(-parts[0])) * parts[1]]
        return [part + self.given.get(f"y{i}", 0) for i, part in enumerate(parts)]

    def _product(self, weight, tables):
        spec = self.spec
        repeat = spec.weight.group // spec.activation_group
        sums = self.z[:, None, :].astype(np.float64)
        dots = spec.weight.step * code_sums(tables, weight.codes, spec.weight.bits)
        scale = np.repeat(weight.scale, repeat, 1).astype(np.float64)
        result = np.einsum(
            "nrg,rg,ng->nr", dots - spec.weight.zero_point * sums, scale, self.s.astype(np.float64)
        )
        if weight.zero is not None:
            zero = np.repeat(weight.zero, repeat, 1).astype(np.float64)
            result += (self.s.astype(np.float64) * self.z) @ zero.T
        return result

    def buffers(self):
        """Name -> array with guards, of the product and of what builds its tables."""
        layouts = self.spec.layouts
        given = {"q": self.q, "qs": self.s, "qz": self.z, **self.given}
        for i, weight in enumerate(self.weights):
            given[f"w{i}"] = lut_packing.pack(weight, layouts[i]).view(np.int8)
        specs = [*BuildTables(self.spec.tables).buffers, *self.spec.buffers()]
        return {one.name: guarded(one, given.get(one.name)) for one in specs}


def guarded(buffer, values):
    dtype = {"f32": np.float32, "i32": np.int32, "i8": np.int8}[str(buffer.dtype)]
    whole = np.full(buffer.size + 2 * GUARD, np.nan if dtype is np.float32 else 77, dtype)
    if values is not None:
        whole[GUARD : GUARD + values.size] = values.reshape(-1)
    return whole


def run(case, code, index, threads=1):
    """The outputs [n, rows] of a case; its guards and padding rows are checked."""
    whole = case.buffers()
    arrays = {name: array[GUARD:-GUARD] for name, array in whole.items()}
    for name, specs in (
        (f"t{index}", BuildTables(case.spec.tables).buffers),
        (f"k{index}", case.spec.buffers()),
    ):
        for thread in range(threads):
            code.call(name, *(arrays[one.name] for one in specs), case.n, 0, thread, threads)
    for name, array in whole.items():
        edges = np.concatenate([array[:GUARD], array[-GUARD:]])
        assert np.all(np.isnan(edges) if array.dtype.kind == "f" else edges == 77), name
    outputs = []
    for i, rows in enumerate(case.spec.outputs):
        every = arrays[f"y{i}"].reshape(-1, rows)
        assert np.isnan(every[case.n :]).all()
        outputs.append(every[: case.n])
    return outputs


@pytest.mark.parametrize(
    ("isa", "order"), LEVELS_RUN, ids=lambda value: getattr(value, "name", value)
)
def test_product(rng, error, isa, order):
    for index, spec in enumerate(at(isa, order)):
        case = Case(spec, rng)
        for got, want in zip(run(case, library(isa, order), index), case.reference(), strict=True):
            assert error(got, want) < 1e-11, list(CASES)[index]


def test_levels_agree_bit_for_bit(rng):
    for index, spec in enumerate(at(X86_64_V3, "lut1")):
        case = Case(spec, rng)
        want = run(case, library(X86_64_V3, "lut1"), index)
        for isa, order in LEVELS_RUN[1:]:
            case.spec = at(isa, order)[index]
            for one, other in zip(run(case, library(isa, order), index), want, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(rng, threads):
    for index, spec in enumerate(at(X86_64_V3, "lut1")):
        case, code = Case(spec, rng), library(X86_64_V3, "lut1")
        for one, other in zip(run(case, code, index), run(case, code, index, threads), strict=True):
            np.testing.assert_array_equal(one, other)


EXTREMES = [
    LutSpec(Codes(bits, 256, zero_point), (65,), 256, activation_group=256, symmetric=symmetric)
    for bits, zero_point in ((1, 0), (2, 1), (4, 8))
    for symmetric in (True, False)
]


@cache
def extremes():
    functions = []
    for i, spec in enumerate(EXTREMES):
        dot = MatmulSpec(spec.weight, spec.rows, spec.cols, activation_group=256, isa=spec.isa)
        functions += [lower_lut(spec, f"k{i}"), BuildTables(spec.tables).build(f"t{i}")]
        functions.append(lower_matmul(dot, f"d{i}"))
    return load([compile_module(ModuleOp(functions))])


@pytest.mark.parametrize("pattern", ["random", "largest", "smallest", "mixed", "zero"])
def test_exact_tables_are_the_integer_product_bit_for_bit(rng, pattern):
    for index, spec in enumerate(EXTREMES):
        case, code = Case(spec, rng), extremes()
        if pattern != "random":
            case.q[:] = {"largest": 127, "smallest": -127, "mixed": 127, "zero": 0}[pattern]
            case.q[:, ::3] *= -1 if pattern == "mixed" else 1
            case.z[:] = case.q.sum(dtype=np.int32)
            case.weights[0].codes[:40] = 2**spec.weight.bits - 1
            case.weights[0].codes[40:50, ::3] = 0
        (got,) = run(case, code, index)
        want = np.zeros((1, 65), np.float32)
        layout = TileLayout(65, 256, spec.weight.bits, 256)
        packed = packing.pack(case.weights[0], layout).view(np.int8)
        code.call(f"d{index}", case.q, case.s, case.z, packed, want, 1, 0, 0, 1)
        np.testing.assert_array_equal(got, want)


def test_scales_at_the_edge_of_f16(rng, error):
    index = list(SHAPES).index("ternary, residual") * 2
    case = Case(at(X86_64_V3, "lut1")[index], rng)
    case.weights[0].scale[:] = np.float16(6e-8)
    case.weights[0].scale[5, 1] = np.inf
    (got,), (want,) = run(case, library(X86_64_V3, "lut1"), index), case.reference()
    others = np.arange(65) != 5
    assert not np.isfinite(got[0, 5])
    assert error(got[0, others], want[0, others]) < 1e-11


def test_fewer_tokens_than_there_is_room_for(rng, error):
    index = list(SHAPES).index("bipolar, tokens") * 2
    case = Case(at(X86_64_V3, "lut1")[index], rng, n=2)
    (got,), (want,) = run(case, library(X86_64_V3, "lut1"), index), case.reference()
    assert error(got, want) < 1e-11


@pytest.mark.parametrize(
    ("level", "order"),
    [(name, "lut1") for name in LEVELS] + [("avx512-vbmi", "lut4"), ("amx", "lut4")],
)
def test_compiles_for_every_level(level, order):
    isa = LEVELS[level]
    specs = [
        LutSpec(Codes(2, 64, 2), (64,), 64, activation_group=64, order=order, isa=isa, exact=exact)
        for exact in (True, False)
    ]
    module = ModuleOp([lower_lut(spec, f"k{i}") for i, spec in enumerate(specs)])
    assert compile_module(module, for_level(isa))


BASE = LutSpec(Codes(2, 64, 2), (64,), 128, activation_group=64)


@pytest.mark.parametrize(
    ("change", "fault", "message"),
    [
        ({"rows": ()}, MatmulError, "needs rows, tokens and threads"),
        ({"activation_group": 48}, MatmulError, "tables in groups of 48, weights in groups of 64"),
        (
            {"weight": Codes(2, 512), "cols": 512, "activation_group": 512},
            MatmulError,
            "tables in groups of 512",
        ),
        ({"order": "lut4"}, MatmulError, "'x86-64-v3' has nothing that looks up 64 bytes"),
        (
            {"isa": replace(NEON, byte_shuffle=Permute())},
            MatmulError,
            "nothing that looks up 16 bytes",
        ),
        ({"weight": Codes(8, 64)}, LayoutError, "codes of 8 bits are too wide to be looked up"),
    ],
)
def test_refused(change, fault, message):
    with pytest.raises(fault, match=message):
        replace(BASE, **change)
