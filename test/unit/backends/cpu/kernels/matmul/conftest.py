"""Matmul kernels on numpy arrays: made-up weights, compiled specs, guarded buffers."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu import packing
from nybble.backends.cpu.emulate import compile_runnable
from nybble.backends.cpu.float_bytes import from_floats, to_floats
from nybble.backends.cpu.host import request_amx
from nybble.backends.cpu.kernels.matmul import Codes, lower_matmul, matmul_buffers
from nybble.backends.cpu.kernels.matmul.codes import SmallFloat
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import cpu_flags
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.formats.table_element import SmallFloat as Element
from nybble.dialects.numpy_ref.quantize import dequantize_rows, quantize_rows

GUARD = 64
NUMPY = {"f32": np.float32, "i32": np.int32, "i8": np.int8}


def needs(isa):
    """Ask for the tiles of a level that has them; skip where the machine has them, but not us."""
    if isa.tiles and isa.needs <= cpu_flags() and not request_amx():
        pytest.skip("the system gives no AMX tiles")


@cache
def library(specs):
    """The compiled kernels of specs of one level, named k0, k1, .."""
    kernels = [lower_matmul(spec, f"k{i}") for i, spec in enumerate(specs)]
    module = ModuleOp(kernels)
    module.verify()
    return load([compile_runnable(module, specs[0].isa)])


@dataclass
class Problem:
    """Inputs of a spec for n tokens, and what the kernel should give for them in f64."""

    spec: object
    n: int
    rng: np.random.Generator
    integers: bool = False
    weights: list = field(default_factory=list)
    inputs: dict = field(default_factory=dict)

    def __post_init__(self):
        spec, shape = self.spec, (self.n, self.spec.cols)
        self.weights = [self._weight(rows) for rows in spec.rows]
        x = self.rng.standard_normal(shape).astype(np.float32)
        if spec.activations == "a8":
            q, s, z = quantize_rows(x, spec.activation_group, spec.digits)
            s = np.ones_like(s) if self.integers else s
            self.inputs = {"q": q, "s": s, "z": z}
        else:
            self.inputs = {"x": x}
        for i, rows in enumerate(spec.rows if spec.bias else ()):
            self.inputs[f"b{i}"] = self._floats((rows,))
        for i, rows in enumerate(spec.outputs if spec.residual else ()):
            self.inputs[f"y{i}"] = self._floats((self.n, rows))

    def _floats(self, shape):
        return self.rng.standard_normal(shape).astype(np.float32)

    def _weight(self, rows):
        kind, cols = self.spec.weight, self.spec.cols
        if not isinstance(kind, Codes):
            values = self._floats((rows, cols))
            layout = kind.layout(rows, cols)
            return packing.unpack_dense(packing.pack_dense(values, layout), layout)
        codes = self.rng.integers(0, 2**kind.bits, (rows, cols)).astype(np.uint8)
        return Weight(
            "made up",
            codes,
            self._scales((rows, cols // kind.group)),
            zero=self._scales((rows, cols // kind.group)) if kind.has_zero else None,
            table=np.array(meaning(kind), np.float32),
            selector=self._choices((rows, cols // kind.group)) if kind.has_choice else None,
        )

    def _choices(self, shape):
        return self.rng.integers(0, len(self.spec.weight.table.specials), shape).astype(np.uint8)

    def _scales(self, shape):
        scale = np.ones(shape) if self.integers else self.rng.standard_normal(shape)
        name = self.spec.weight.scale
        return from_floats(to_floats(scale.astype(np.float32), name), name).reshape(shape)

    def packed(self):
        pairs = zip(self.weights, self.spec.layouts, strict=True)
        is_codes = isinstance(self.spec.weight, Codes)
        pack = packing.pack if is_codes else packing.pack_dense
        return {f"w{i}": pack(weight, layout) for i, (weight, layout) in enumerate(pairs)}

    def matrices(self):
        if not isinstance(self.spec.weight, Codes):
            return [weight.astype(np.float64) for weight in self.weights]
        return [decoded(weight) for weight in self.weights]

    def expected(self):
        """f64 outputs [n, rows] of each part, or of the gated pair."""
        given, spec = self.inputs, self.spec
        x = given["x"] if "x" in given else dequantize_rows(given["q"], given["s"])
        with np.errstate(invalid="ignore"):
            parts = [x.astype(np.float64) @ matrix.T for matrix in self.matrices()]
        if spec.bias:
            parts = [part + given[f"b{i}"] for i, part in enumerate(parts)]
        if spec.glu:
            parts = [gate(parts[0], spec.glu) * parts[1]]
        if spec.residual:
            parts = [part + given[f"y{i}"] for i, part in enumerate(parts)]
        return parts


def meaning(kind):
    """T of all codes, one row for each choice if groups choose."""
    if isinstance(kind.table, SmallFloat):
        return Element(kind.table.exponent, kind.table.mantissa).values
    if kind.table is None:
        return np.arange(2.0**kind.bits) * kind.step - kind.zero_point
    rows = np.tile(kind.table.values, (max(len(kind.table.specials), 1), 1))
    if kind.has_choice:
        rows[:, kind.table.special] = kind.table.specials
        return rows
    return rows[0]


def decoded(weight):
    """f64 [rows, cols] of a weight, without the f32 roundings of `dequantize`."""
    size = weight.codes.shape[1] // weight.scale.shape[1]
    table = weight.table.astype(np.float64)
    if weight.selector is None:
        values = table[weight.codes]
    else:
        values = table[np.repeat(weight.selector, size, 1), weight.codes]
    values = values * np.repeat(weight.scale, size, 1)
    return values if weight.zero is None else values + np.repeat(weight.zero, size, 1)


def gate(x, name):
    """silu or gelu_tanh in f64."""
    if name == "silu":
        return x / (1 + np.exp(-x))
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


class Matmuls:
    """Specs of one level, compiled as one module; call with a problem of one of them."""

    def __init__(self, specs):
        self.specs = tuple(specs)

    def problem(self, index, n, rng, **options):
        return Problem(self.specs[index], n, rng, **options)

    def __call__(self, problem, threads=1):
        """Outputs [n, rows]; every byte the kernel must not touch is checked."""
        spec = problem.spec
        given = {**problem.inputs, **problem.packed()}
        if spec.digits > 1:
            rows = ((0, 0), (0, spec.padded - problem.n), (0, 0))
            given["q"] = np.pad(given["q"], rows, constant_values=77)
        guarded = [_guarded(buffer, given.get(buffer.name)) for buffer in matmul_buffers(spec)]
        arrays = [whole[GUARD:-GUARD] for whole in guarded]
        kernels, name = library(self.specs), f"k{self.specs.index(spec)}"
        for thread in range(threads):
            kernels.call(name, *arrays, problem.n, 0, thread, threads)
        outputs = []
        for whole, buffer in zip(guarded, matmul_buffers(spec), strict=True):
            fresh = _guarded(buffer, None)
            for edge in (slice(None, GUARD), slice(-GUARD, None)):
                np.testing.assert_array_equal(whole[edge], fresh[edge], buffer.name)
            if buffer.name.startswith("y"):
                rows = whole[GUARD:-GUARD].reshape(spec.padded, -1)
                assert np.isnan(rows[problem.n :]).all(), "padding rows of an output"
                outputs.append(rows[: problem.n])
        return outputs


def _guarded(buffer, values):
    dtype = NUMPY[str(buffer.dtype)]
    fill = np.nan if dtype is np.float32 else 77
    whole = np.full(buffer.size + 2 * GUARD, fill, dtype)
    if values is not None:
        whole[GUARD : GUARD + values.size] = values.reshape(-1).view(dtype)
    return whole


def nmse(got, want):
    """Squared error over squared magnitude."""
    return np.square(got - want).sum() / np.square(want).sum()


@pytest.fixture(scope="session")
def matmuls():
    def make(specs):
        needs(specs[0].isa)
        return Matmuls(specs)

    return make


@pytest.fixture(scope="session")
def error():
    return nmse
