"""OpenVINO as a peer: MatMul over compressed constants, under each way to treat activations.

The graph that its CPU plugin recognises is Constant -> Convert -> Subtract -> Multiply -> Reshape
-> MatMul (OpenVINO documentation, "Weight compression"). A dynamic quantization group of 0 keeps
activations as floats.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.tools.bench.data import Sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.affine import Affine, affine
from nybble.tools.bench.peers.api import KernelRunner, Note
from nybble.tools.bench.peers.optional import KernelsOnly, package
from nybble.tools.bench.peers.rotating import RotatingKernel
from nybble.tools.bench.rounds import Rotation

SYSTEM = "OpenVINO"
WIDTHS = (2, 4, 8)


class OpenVino(KernelsOnly):
    """The peer "openvino"; see nybble.tools.bench.peers.api."""

    system = SYSTEM

    def kernels(
        self, sample: Sample, threads: int, rotation: Rotation, note: Note
    ) -> dict[str, KernelRunner]:
        """Variant -> product, for those that take the format."""
        core = package("openvino", SYSTEM).Core()
        weight = affine(sample, WIDTHS)
        if weight.whole_zero_points is None:
            raise UnavailableError(f"{SYSTEM} takes zero points that are codes")
        found: dict[str, KernelRunner] = {}
        for name, setting in self._settings(core, weight.group).items():
            setting = setting | {"INFERENCE_NUM_THREADS": threads}
            try:
                products = self._thread.run(
                    _products, core, weight, sample.x, setting, rotation.copies
                )
            except RuntimeError as error:
                note(f"{SYSTEM} {name}: {str(error).splitlines()[-1][:120]}")
                continue
            found[name] = RotatingKernel(self._thread, products, rotation)
        return found

    def _settings(self, core: Any, group: int) -> dict[str, dict[str, object]]:
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precisions = ["f32", *(["bf16"] if "BF16" in able else [])]
        fixed: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
        return {
            f"{precision}{' int8' if quantized else ''}": fixed
            | {
                "INFERENCE_PRECISION_HINT": precision,
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": quantized,
            }
            for precision in precisions
            for quantized in (group, 0)
        }


def _products(
    core: Any,
    weight: Affine,
    x: NDArray[np.float32],
    setting: dict[str, object],
    copies: int,
) -> list[Any]:
    return [_product(core, weight, x, setting) for _ in range(copies)]


def _product(core: Any, weight: Affine, x: NDArray[np.float32], setting: dict[str, object]) -> Any:
    openvino = package("openvino", SYSTEM)
    model, _constants = _model(openvino, weight, x.shape)
    compiled = core.compile_model(model, "CPU", setting)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def run() -> NDArray[np.float32]:
        request.infer()
        return request.get_output_tensor().data

    run()
    return run


def _model(
    openvino: Any, weight: Affine, shape: tuple[int, ...]
) -> tuple[Any, Sequence[NDArray[np.uint8]]]:
    """A model, and the memory that its constants lie in until it is compiled."""
    ops = package("openvino.opset13", SYSTEM)
    rows, cols = weight.codes.shape
    groups = cols // weight.group
    kind = {2: openvino.Type.u2, 4: openvino.Type.u4, 8: openvino.Type.u8}[weight.bits]
    whole = weight.whole_zero_points
    assert whole is not None
    held: list[NDArray[np.uint8]] = []

    def constant(values: NDArray[np.uint8], dims: list[int]) -> Any:
        held.append(weight.packed(values.reshape(1, -1)).reshape(-1))
        return ops.constant(openvino.Tensor(held[-1], dims, kind))

    codes = ops.convert(constant(weight.codes, [rows, groups, weight.group]), "f16")
    points = ops.convert(constant(whole, [rows, groups, 1]), "f16")
    scale = ops.constant(weight.scale.reshape(rows, groups, 1).astype(np.float16))
    values = ops.multiply(ops.subtract(codes, points), scale)
    values = ops.reshape(values, ops.constant(np.array([rows, cols])), False)
    x = ops.parameter(list(shape), openvino.Type.f32)
    product = ops.matmul(x, ops.convert(values, "f32"), False, True)
    return openvino.Model([product], [x]), held
