"""Exponential and gates against f64, over their whole range."""

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.codegen import jit
from nybble.backends.cpu.kernels import gates
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, f32
from nybble.dialects.numpy_ref.glu import ACTIVATIONS

SIZE = 1 << 16
FUNCTIONS = {
    "exp": np.exp,
    "sigmoid": lambda x: 0.5 * (1 + np.tanh(0.5 * x)),
    **ACTIVATIONS,
}


@pytest.fixture(scope="module")
def library():
    kernels = []
    for name in FUNCTIONS:
        b = KernelBuilder(name, [BufferSpec("x", SIZE, f32), BufferSpec("y", SIZE, f32)])
        x, y = b.buffers
        with b.for_(0, SIZE, 16) as loop:
            y.vstore(getattr(gates, name)(b, x.vload(loop.iv, 16)), loop.iv)
        kernels.append(b.finish())
    return jit(ModuleOp(kernels))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(library, name):
    x, y = np.linspace(-87, 80, SIZE, dtype=np.float32), np.empty(SIZE, np.float32)
    library.call(name, x, y, 1, 0, 0, 1)
    want = FUNCTIONS[name](x.astype(np.float64))
    big = np.abs(want) > 1e-6
    np.testing.assert_allclose(y[big], want[big], rtol=2e-6)
    np.testing.assert_allclose(y[~big], want[~big], atol=1e-6)


def test_ends(library):
    x, y = np.zeros(SIZE, np.float32), np.empty(SIZE, np.float32)
    x[:5] = [-np.inf, -100, 0, np.inf, np.nan]
    library.call("exp", x, y, 1, 0, 0, 1)
    np.testing.assert_array_equal(y[:3], [0, 0, 1])
    assert 1e38 < y[3] < np.inf
    assert np.isnan(y[4])
    library.call("silu", x, y, 1, 0, 0, 1)
    np.testing.assert_array_equal(y[3], np.inf)
    assert abs(y[1]) < 1e-30
