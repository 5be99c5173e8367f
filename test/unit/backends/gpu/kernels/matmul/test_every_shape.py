"""Every kernel of products on every architecture, at twenty shapes with and without tails."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import ARCHS, IMAGINED, find_arch
from nybble.backends.gpu.kernels.matmul.lookup import lookup_spec
from nybble.backends.gpu.simulated import run_lookup
from nybble.dialects.lowbit import formats

SHAPES = [
    # rows x columns, in units, x tokens: tiles of rows and of tokens that are full, or not, or
    # several; records and passes that are one or several
    (1, 1, 1), (16, 1, 1), (17, 2, 1), (32, 1, 2), (33, 3, 3), (40, 2, 5), (64, 1, 7), (70, 2, 8),
    (5, 4, 9), (16, 5, 4), (24, 2, 15), (31, 1, 16), (48, 3, 17), (65, 1, 6), (8, 9, 2),
    (40, 1, 33), (20, 2, 24), (3, 3, 64), (16, 1, 65), (72, 6, 1),
]  # fmt: skip
UNIT = {"f16": 64, "bf16": 64, "i8": 64, "b2": 128, "b1": 128}
FORMATS = {
    "f16": ("w4g64", "w2g64", "w3g64m", "nf4", "mxfp4", "w8g64"),
    "bf16": ("w4g64z", "w1g64", "fp8_e5m2", "nvfp4", "b1_58"),
    "i8": ("w4g64", "w2g64m", "w8g64", "mxfp4", "iq4_nl"),
    "b2": ("w2g128", "w4g128", "w1g128"),
    "b1": ("w1g128",),
}
"""In turn. Activations -> formats."""
SCALED, ROUNDED = 16, 4.0
"""With more tokens fragments are scaled, so that each weight is rounded: by up to four times what
`run_product` allows, which is what is lost on an average over many columns."""
REAL = [one for one in ARCHS if one not in IMAGINED]

pytestmark = pytest.mark.exhaustive


def test_there_are_twenty_shapes_of_each():
    assert len(set(SHAPES)) >= 20
    assert len({shape[0] % 16 for shape in SHAPES}) > 4


@pytest.mark.parametrize("arch", REAL)
@pytest.mark.parametrize("activations", FORMATS)
def test_streams(run_product, arch, activations):
    if activations[0] == "b" and activations != "bf16" and "b1" not in find_arch(arch).native:
        pytest.skip("it multiplies no bits")
    names = FORMATS[activations]
    for turn, (rows, units, tokens) in enumerate(SHAPES):
        name, cols = names[turn % len(names)], units * UNIT[activations]
        ran = run_product(name, rows, cols, tokens, arch=arch, activations=activations)
        most = ROUNDED if activations in ("f16", "bf16") and tokens > SCALED else 1.0
        assert ran.worst < most, (name, rows, cols, tokens)
        assert ran.report.bank_conflicts == 0, (name, rows, cols, tokens)


@pytest.mark.parametrize("arch", REAL)
@pytest.mark.parametrize(("name", "activations"), [("spqr3", "f16"), ("df11", "bf16")])
def test_outliers(run_product, arch, name, activations):
    for rows, units, tokens in SHAPES:
        ran = run_product(name, rows, 64 * units, tokens, arch=arch, activations=activations)
        most = ROUNDED if name == "spqr3" and tokens > SCALED else 1.0
        assert ran.worst < most, (rows, units, tokens)


def test_warpgroups(run_product):
    names = FORMATS["f16"]
    for turn, (rows, units, tokens) in enumerate(SHAPES):
        name, many = names[turn % len(names)], 15 + tokens
        ran = run_product(name, rows, 64 * units, many, warpgroups=True)
        assert ran.worst < ROUNDED, (name, rows, units, many)
        assert ran.report.bank_conflicts == 0, (name, rows, units, many)


def test_lookups():
    (arch,) = IMAGINED
    random = np.random.default_rng(0)
    for turn, (rows, units, tokens) in enumerate(SHAPES):
        name, cols = ("w4g64", "w2g64", "w1g64", "w4g64z")[turn % 4], 64 * units
        spec = lookup_spec(name, rows, cols, tokens)
        values = random.standard_normal((rows, cols)).astype(np.float32)
        weight = formats.get(name).quantize(values)
        x = random.standard_normal((tokens, cols)).astype(np.float32)
        y = run_lookup(spec, x, spec.pack(weight), find_arch(arch))
        exact = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
        size = np.abs(x) @ np.abs(weight.dequantize()).T + np.abs(weight.scale).max() * 64
        assert (np.abs(y - exact) / size).max() < 4e-3, (name, rows, cols, tokens)
