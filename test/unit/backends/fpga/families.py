"""Products that C simulation runs, a kernel of each dataflow, and cases that go wrong."""

from dataclasses import replace

import numpy as np
from test.unit.backends.fpga.conftest import BITMOD, make

from nybble.backends.fpga.dataflows import MODE

EACH = 60
FAMILIES = (
    ("lut_array", "w2g32", 7, 96, 1),  # groups of no whole number of elements
    ("multiply_array", "w4g32z", 5, 64, 2, True, MODE),  # zeros and a bias
    ("sparse_chain", "i8:g=32:s=f32:sparse=2of4", 7, 64, 2),  # two tokens in a DSP block
    ("serial_array", BITMOD, 3, 128, 2),  # tables that groups choose, scales bit by bit
    ("xnor_array", "w1", 5, 150, 2, False, "b1-token"),  # a mean, of two words more than a round
)
PAIRED = (2,)
"""Families of 8 bits with two products in a DSP block."""
COUNTED = (0, 3)
"""Families whose cycles are counted."""
MORE = (
    ("lut_array", "w2g32z", 5, 64, 2, True, MODE),
    ("lut_array", "b1_58", 19, 100, 5),  # trits, a second pass of one token, a tail of columns
    ("lut_array", "w1", 33, 70, 3),  # either sign, no sums
    ("multiply_array", "w4g32", 5, 64, 2),
    ("serial_array", "i6:g=64x2:s=u6-32*f16", 5, 256, 1),  # three terms, signed scales
    ("xnor_array", "bip3:g=16:s=f32", 3, 48, 1, True, "b4-token"),
    ("sparse_chain", "i8:g=64:s=f32:sparse=8of16.block16", 32, 64, 1),  # two rows in one
    ("sparse_chain", "i8:g=row:s=f32", 6, 40, 1),  # all columns kept, two rows in one
)
"""What takes longer to compile than a usual run has."""
MORE_PAIRED = (6, 7)


def make_all(families):
    """Kernels k0, k1 .."""
    return [
        make(flow, spec, *shape, f"k{index}", "u280", *more)
        for index, (flow, spec, *rest) in enumerate(families)
        for shape, more in [(rest[:3], rest[3:])]
    ]


def activation(kind, shape, random):
    """Rows of a kind that kernels go wrong at."""
    x = random.standard_normal(shape).astype(np.float32)
    if kind == "ends":
        return np.where(x > 0, np.float32(1), np.float32(-1))
    if kind == "denormal":
        return x * np.float32(1e-39)
    if kind == "not finite":
        x[0, -1] = random.choice([np.inf, -np.inf, np.nan])
    if kind == "zero":
        x[:] = 0
    return x


def bias_of(made, random):
    """A random bias for a kernel that adds one."""
    rows = made.shape[0]
    return random.standard_normal(rows).astype(np.float32) if made.design.has_bias else None


def random_cases(made, seed):
    """Activations and weights of many kinds."""
    random = np.random.default_rng(seed)
    rows, cols, tokens = made.shape
    for number in range(EACH):
        kind = ("normal", "ends", "denormal", "not finite", "zero")[number % 5]
        values = random.standard_normal((rows, cols))
        if number % 3 == 0:
            values = np.where(values > 0, 1.0, -1.0)
        elif number % 3 == 1:
            values[random.random(rows) < 0.5] = 0
        x = activation(kind, (tokens, cols), random)
        yield made.case(x, made.weight(values), bias_of(made, random))


def extreme_cases(made, seed):
    """Codes and activations at the ends of what they may be, of any signs."""
    random = np.random.default_rng(seed)
    rows, cols, tokens = made.shape
    plain = made.weight(random.standard_normal((rows, cols)))
    for codes in ((0,), (255,), (0, 255), (0, 255), (0, 127, 128, 129, 255)):
        drawn = random.choice(codes, (rows, cols)).astype(np.uint8)
        x = random.choice([-1.0, 1.0], (tokens, cols)).astype(np.float32)
        for one in (x, abs(x), -abs(x)):
            yield made.case(one, replace(plain, codes=drawn))


def check_cases(made, simulation, cases):
    """Each case's floats are those of the references, bit by bit but for the kind of a NaN."""
    asked = list(cases)
    for case, ran in zip(asked, simulation.run(asked), strict=True):
        wanted, floats = made.reference(case)
        got = ran.written[0].view(np.float32)
        assert np.array_equal(got, wanted.view(np.float32), equal_nan=True), floats
