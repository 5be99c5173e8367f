"""ONNX Runtime as a peer: com.microsoft.MatMulNBits under each of its accuracy levels.

The operator is specified in onnxruntime's docs/ContribOperators.md: B is u8 [N, K / block,
block * bits / 8] with the first code in the low bits, scales f32 [N, K / block], zero points packed
alike or f32; without any, it is 2**(bits - 1). Accuracy level 4 quantizes activations to 8 bits.
"""

from dataclasses import dataclass
from functools import partial
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

SYSTEM = "ONNX Runtime"
WIDTHS = (2, 4, 8)
LEAST_BLOCK = 16
LOOKUP = "mlas.use_lut_gemm"
"""The session option of the lookup-table kernels (2 bits)."""


@dataclass(frozen=True)
class Variant:
    """accuracy: level of the operator, 4 for 8-bit activations, 0 for f32. lookup: see LOOKUP."""

    accuracy: int
    lookup: bool = False


VARIANTS = {
    "int8": Variant(4),
    "f32": Variant(0),
    "int8 lut": Variant(4, lookup=True),
    "f32 lut": Variant(0, lookup=True),
}


class OnnxRuntime(KernelsOnly):
    """The peer "onnxruntime"; see nybble.tools.bench.peers.api."""

    system = SYSTEM

    def kernels(
        self, sample: Sample, threads: int, rotation: Rotation, note: Note
    ) -> dict[str, KernelRunner]:
        """Variant -> product, for those that take the format."""
        package("onnxruntime", SYSTEM)
        weight = affine(sample, WIDTHS)
        if weight.group < LEAST_BLOCK or weight.group & (weight.group - 1):
            raise UnavailableError(
                f"MatMulNBits takes no blocks of {weight.group}", accepted="16, 32, 64, 128, .."
            )
        found: dict[str, KernelRunner] = {}
        for name, variant in VARIANTS.items():
            if variant.lookup and weight.bits != 2:
                continue
            try:
                products = self._thread.run(
                    _products, weight, sample.x, variant, threads, rotation.copies
                )
            except UnavailableError as reason:
                note(f"{SYSTEM} {name}: {reason.message}")
                continue
            found[name] = RotatingKernel(self._thread, products, rotation)
        return found


def _products(
    weight: Affine, x: NDArray[np.float32], variant: Variant, threads: int, copies: int
) -> list[Any]:
    model = _model(weight, x.shape, variant.accuracy)
    return [_product(model, x, variant, threads) for _ in range(copies)]


def _product(model: bytes, x: NDArray[np.float32], variant: Variant, threads: int) -> Any:
    runtime = package("onnxruntime", SYSTEM)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry(LOOKUP, str(int(variant.lookup)))
    try:
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        binding.bind_cpu_input("X", x)
        binding.bind_output("Y", "cpu")
        session.run_with_iobinding(binding)
    except Exception as error:  # noqa: BLE001  its classes share no base
        raise UnavailableError(str(error).splitlines()[0][:120]) from None
    return partial(_run, session, binding)


def _run(session: Any, binding: Any) -> Any:
    session.run_with_iobinding(binding)
    return _Output(binding)


class _Output:
    """A result that is copied out only where somebody looks at it."""

    def __init__(self, binding: Any) -> None:
        self._binding = binding

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[np.float32]:
        return self._binding.copy_outputs_to_cpu()[0]


def _model(weight: Affine, shape: tuple[int, ...], accuracy: int) -> bytes:
    onnx = package("onnx", SYSTEM)
    rows, cols = weight.codes.shape
    groups = cols // weight.group
    packed = weight.packed(weight.codes).reshape(rows, groups, weight.group * weight.bits // 8)
    constants = {"B": packed, "S": weight.scale}
    whole = weight.whole_zero_points
    if whole is None:
        constants["Z"] = weight.zero_point
    elif np.any(whole != 2 ** (weight.bits - 1)):
        constants["Z"] = weight.packed(whole)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node(
        "MatMulNBits",
        ["X", *constants],
        ["Y"],
        domain="com.microsoft",
        K=cols,
        N=rows,
        bits=weight.bits,
        block_size=weight.group,
        accuracy_level=accuracy,
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("X", kind, shape)],
        [helper.make_tensor_value_info("Y", kind, [shape[0], rows])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
