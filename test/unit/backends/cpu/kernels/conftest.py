"""Running one generated kernel on numpy arrays, with every buffer guarded at both ends."""

from functools import cache

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.codegen import jit

GUARD = 64
FILL = {"f": np.nan, "i": 77}


class Runner:
    """Calls kernels by their specification; each is compiled once in a test session."""

    @staticmethod
    @cache
    def _library(spec):
        return jit(ModuleOp([spec.build("kernel")]))

    def __call__(self, spec, *, n=1, pos=0, threads=1, **inputs):
        """Buffer name -> flat array after the kernel ran once per thread index.

        What an input does not fill of its buffer, and every output, is NaN (77) beforehand.
        """
        guarded = [self._guarded(buffer, inputs.pop(buffer.name, None)) for buffer in spec.buffers]
        assert not inputs, f"no buffers {list(inputs)}"
        arrays = [array[GUARD:-GUARD] for array in guarded]
        for thread in range(threads):
            self._library(spec).call("kernel", *arrays, n, pos, thread, threads)
        for array, buffer in zip(guarded, spec.buffers, strict=True):
            fill = np.full(GUARD, FILL[array.dtype.kind], array.dtype)
            for edge in (array[:GUARD], array[-GUARD:]):
                np.testing.assert_array_equal(edge, fill, f"{buffer.name}: written out of bounds")
        return {b.name: a for b, a in zip(spec.buffers, arrays, strict=True)}

    @staticmethod
    def _guarded(buffer, values):
        name = str(buffer.dtype)
        dtype = np.dtype({"f": "float", "i": "int"}[name[0]] + name[1:])
        array = np.full(buffer.size + 2 * GUARD, FILL[dtype.kind], dtype)
        if values is not None:
            flat = np.asarray(values).reshape(-1)
            assert flat.dtype == dtype
            array[GUARD : GUARD + flat.size] = flat
        return array


@pytest.fixture(scope="session")
def run():
    return Runner()


@pytest.fixture
def rng(request):
    return np.random.default_rng(sum(map(ord, request.node.name)))


@pytest.fixture(scope="session")
def relative_error():
    """|got - want| / |want| in the 2-norm."""

    def error(got, want):
        wide = np.asarray(want, np.float64)
        return np.linalg.norm(np.asarray(got, np.float64) - wide) / np.linalg.norm(wide)

    return error
