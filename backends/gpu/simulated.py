"""A product executed in the simulator: the very kernels that ship, on numpy arrays."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.kernels.matmul.lookup import (
    LookupSpec,
    TablesSpec,
    lookup_kernel,
    tables_kernel,
)
from nybble.backends.gpu.products import Product
from nybble.backends.gpu.sim.findings import SimulationError
from nybble.backends.gpu.sim.report import Report
from nybble.backends.gpu.sim.simulate import simulate
from nybble.dialects.lowbit.formats.numeric import decode_floats, encode_floats

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """x: the activations that were multiplied, f32 [tokens, cols]. y: f32 [tokens, rows]."""

    x: Floats
    y: Floats
    report: Report


def run_product(
    product: Product,
    x: Floats,
    packed: Bytes,
    residual: Floats | None = None,
    *,
    quantizes: bool = True,
) -> Run:
    """The product of x [tokens, cols] and what `Product.pack` gave, with what is added, if it is.

    quantizes: whether integers are made by their kernel, or by the reference.
    Raises SimulationError for a race, an access outside of a buffer, codes of activations that are
    not those of the reference, or counters that are not zeros in the end.
    """
    rounded, inputs = activations(product, x, quantizes=quantizes)
    spec, sizes = product.spec, {one.name: one.bytes for one in product.image.parameters}
    shape = (spec.tokens, spec.features)
    y = encode_floats(spec.output, np.full(shape, np.nan, np.float32))
    scratch = {
        "sums": np.full(sizes["sums"], 0xFF, np.uint8),
        "counters": np.zeros(sizes["counters"], np.uint8),
    }
    if residual is not None:
        inputs["residual"] = encode_floats(spec.output, residual)
    report = simulate(product.image, {**inputs, "w": packed, "y": y, **scratch})
    report.check()
    if scratch["counters"].any():
        raise SimulationError("the kernel left counters that are not zero")
    return Run(rounded, decode_floats(spec.output, y), report)


def run_lookup(spec: LookupSpec, x: Floats, packed: Bytes, arch: Arch) -> Floats:
    """The product of x f32 [tokens, cols] and what `LookupSpec.pack` gave, by `lmma`.

    Raises SimulationError for a race or an access outside of a buffer.
    """
    made = TablesSpec(spec.tokens, spec.cols)
    tables = np.full(made.numbers, np.nan, np.float16)
    simulate(tables_kernel(made).image(arch), {"x": x, "tables": tables}).check()
    y = encode_floats(spec.output, np.full((spec.tokens, spec.rows), np.nan, np.float32))
    image = lookup_kernel(spec).image(arch)
    simulate(image, {"tables": tables, "w": packed, "y": y}).check()
    return decode_floats(spec.output, y)


def activations(
    product: Product, x: Floats, *, quantizes: bool = True
) -> tuple[Floats, dict[str, Bytes]]:
    """x as it is multiplied, and the buffers that a kernel reads of it."""
    quantized = product.spec.quantized
    if quantized is None:
        data = encode_floats(product.spec.activations, x)
        return decode_floats(product.spec.activations, data), {"x": data}
    rounded, expected = quantized.reference(x)
    made = {one.name: np.full(one.bytes, 0xFF, np.uint8) for one in quantized.results}
    found = {
        name: made[name].view(wanted.dtype).reshape(len(wanted), -1)[:, : wanted.shape[1]]
        for name, wanted in expected.items()
    }
    image = product.quantizer if quantizes else None
    if image is None:
        for name, wanted in expected.items():
            found[name][:] = wanted
        return rounded, made
    simulate(image, {"input": x, **made}).check()
    for name, wanted in expected.items():
        slack = quantized.scale_error if name == "scales" else 0.0
        if not np.allclose(found[name], wanted, rtol=slack, atol=0):
            raise SimulationError(f"'{name}' of the quantization is not what the reference has")
    return rounded, made
