"""Runs products in the simulator, on the kernels' own bytes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nybble.backends.gpu.products import Product, compile_product
from nybble.backends.gpu.sim.report import Report
from nybble.backends.gpu.sim.simulate import simulate
from nybble.dialects.lowbit import formats

ROUNDING = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24}


def to_bytes(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bf16":
        return values.astype(np.float16 if dtype == "f16" else np.float32)
    words = values.astype(np.float32).view(np.uint32)
    return ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)


def to_floats(data: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bf16":
        return data.astype(np.float32)
    return (data.astype(np.uint32) << 16).view(np.float32)


@dataclass
class Ran:
    """What a product gave. worst: its largest error, in units of what rounding allows."""

    product: Product
    report: Report
    y: np.ndarray
    worst: float
    counters: np.ndarray


@pytest.fixture
def run_product():
    """A function that quantizes, packs, multiplies in the simulator, and compares.

    Allowed: the result's rounding, that of weights to the activations' type, and sums in f32.
    """

    def run(name: str, rows: int, cols: int, tokens: int, *, mean: float = 0, **options: Any):
        rng = np.random.default_rng(rows * cols + tokens)
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        weight = formats.get(name).quantize(values)
        product = compile_product(name, rows, cols, tokens, **options)
        dtype, output = product.spec.activations, product.spec.output
        x = to_bytes(rng.standard_normal((tokens, cols)) + mean, dtype)
        buffers = {one.name: one.bytes for one in product.image.parameters}
        y = to_bytes(np.full((tokens, rows), np.nan), output)
        counters = np.zeros(buffers["counters"], np.uint8)
        sums = np.full(buffers["sums"], 0xFF, np.uint8)
        arguments = {"x": x, "w": product.pack(weight), "y": y, "sums": sums}
        report = simulate(product.image, arguments | {"counters": counters})
        exact = product.reference(to_floats(x, dtype), weight)
        size = np.abs(to_floats(x, dtype)) @ np.abs(weight.dequantize()).T
        allowed = ROUNDING[output] * np.abs(exact) + (ROUNDING[dtype] / 4 + 2.0**-18) * size
        errors = np.abs(to_floats(y, output) - exact)
        return Ran(product, report, y, float((errors / (allowed + 1e-30)).max()), counters)

    return run
