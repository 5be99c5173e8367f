"""PyTorch as a peer: plain bf16, 8-bit integers by row, and its packed 4-bit product.

"bf16" gets its activations in bf16 already, as a model in bf16 would; "int8" quantizes each row of
activations before `torch._int_mm`, as torchao's dynamic quantization does; "int4pack" is
`_weight_int4pack_mm_for_cpu`, whose scales and minima are bf16: `(c - 8) * s + m`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.tools.bench.data import Sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.affine import affine
from nybble.tools.bench.peers.api import KernelRunner, Note
from nybble.tools.bench.peers.optional import KernelsOnly, package
from nybble.tools.bench.peers.rotating import RotatingKernel
from nybble.tools.bench.rounds import Rotation

SYSTEM = "torch"
INSTALL = "pip install 'nybble[torch]'"
GROUPS = (32, 64, 128, 256)
LEAST_ROWS = 17
"""`torch._int_mm` takes no fewer rows of activations."""

Product = Callable[[], Any]


class Torch(KernelsOnly):
    """The peer "torch"; see nybble.tools.bench.peers.api."""

    system = SYSTEM

    def kernels(
        self, sample: Sample, threads: int, rotation: Rotation, note: Note
    ) -> dict[str, KernelRunner]:
        """Variant -> product, for those that take the format."""
        torch = package("torch", SYSTEM, INSTALL)
        found: dict[str, KernelRunner] = {}
        for name, make in VARIANTS.items():
            try:
                products = self._thread.run(_set_up, torch, make, sample, threads, rotation.copies)
            except (UnavailableError, RuntimeError) as reason:
                note(f"{SYSTEM} {name}: {str(reason).splitlines()[0][:120]}")
                continue
            found[name] = RotatingKernel(self._thread, products, rotation)
        return found


def _set_up(
    torch: Any, make: Callable[[Any, Sample], Product], sample: Sample, threads: int, copies: int
) -> Sequence[Product]:
    torch.set_num_threads(threads)
    products = [partial(_without_gradients, torch, make(torch, sample)) for _ in range(copies)]
    products[0]()
    return products


def _without_gradients(torch: Any, product: Product) -> NDArray[np.float32]:
    with torch.inference_mode():
        return product()


def _bf16(torch: Any, sample: Sample) -> Product:
    values = sample.format.unpack(sample.raw, sample.shape.cols).dequantize()
    weight = torch.from_numpy(values).to(torch.bfloat16)
    x = torch.from_numpy(sample.x).to(torch.bfloat16)
    return lambda: _Output(torch.nn.functional.linear(x, weight))


def _int8(torch: Any, sample: Sample) -> Product:
    values = sample.format.unpack(sample.raw, sample.shape.cols).dequantize()
    scale = np.abs(values).max(axis=1) / np.float32(127)
    codes = np.rint(np.divide(values, scale[:, None], where=scale[:, None] != 0, out=values))
    weight = torch.from_numpy(codes.astype(np.int8)).t()
    scales = torch.from_numpy(scale)
    x = torch.from_numpy(sample.x)
    rows = max(len(sample.x), LEAST_ROWS)

    def run() -> _Output:
        step = x.abs().amax(dim=1, keepdim=True) / 127
        quantized = torch.zeros((rows, x.shape[1]), dtype=torch.int8)
        quantized[: len(x)] = torch.round(x / step)
        product = torch._int_mm(quantized, weight)[: len(x)]
        return _Output(product * step * scales)

    return run


def _int4pack(torch: Any, sample: Sample) -> Product:
    weight = affine(sample, (4,))
    if weight.group not in GROUPS:
        accepted = ", ".join(map(str, GROUPS))
        raise UnavailableError(f"groups of {weight.group}", accepted=accepted)
    codes = torch.from_numpy(weight.codes.astype(np.int32))
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    minimum = (8 - weight.zero_point) * weight.scale
    both = np.stack([weight.scale.T, minimum.T], axis=-1)
    constants = torch.from_numpy(np.ascontiguousarray(both)).to(torch.bfloat16)
    x = torch.from_numpy(sample.x).to(torch.bfloat16)
    product = torch.ops.aten._weight_int4pack_mm_for_cpu
    return lambda: _Output(product(x, packed, weight.group, constants))


VARIANTS = {"bf16": _bf16, "int8": _int8, "int4pack": _int4pack}


class _Output:
    """A result that is converted only where somebody looks at it."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[np.float32]:
        return self._tensor.float().numpy()
