"""Runs products in the simulator, on the kernels' own bytes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from nybble.backends.gpu.products import Product, compile_spec, product_spec
from nybble.backends.gpu.sim.report import Report
from nybble.backends.gpu.simulated import run_product as simulated
from nybble.dialects.lowbit import formats

ROUNDING = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}
SUMMED = 2.0**-18


@dataclass
class Ran:
    """What a product gave. worst: its largest error, in units of what rounding allows."""

    product: Product
    report: Report
    y: np.ndarray
    worst: float


@pytest.fixture
def run_product():
    """A function that quantizes, packs, multiplies in the simulator, and compares.

    Allowed: the result's rounding, that of weights to the type of activations that are floats, and
    sums in f32. sms: multiprocessors of the board, those of the usual one without.
    """

    def run(
        name: str, rows: int, cols: int, tokens: int, *,
        mean: float = 0, sms: int = 0, **options: Any,
    ):  # fmt: skip
        rng = np.random.default_rng(rows * cols + tokens)
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        weight = formats.get(name).quantize(values)
        spec = product_spec(name, rows, cols, tokens, **options)
        if sms:
            board = replace(spec.arch.board, sms=sms)
            spec = replace(spec, arch=replace(spec.arch, board=board))
        product = compile_spec(formats.get(name).spec, spec, "product")
        x = (rng.standard_normal((tokens, cols)) + mean).astype(np.float32)
        ran = simulated(product, x, product.pack(weight), quantizes=False)
        exact = product.reference(ran.x, weight)
        size = np.abs(ran.x) @ np.abs(weight.dequantize()).T
        lost = ROUNDING.get(product.spec.activations, 0) / 4 + SUMMED
        allowed = ROUNDING[product.spec.output] * np.abs(exact) + lost * size
        worst = float((np.abs(ran.y - exact) / (allowed + 1e-30)).max())
        return Ran(product, ran.report, ran.y, worst)

    return run
