"""Kernels of products without IR: the facts that a cost model reads and what a schedule chooses."""

from dataclasses import replace

from nybble.backends.cpu.bindings.products import LutMatmul, Matmul
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec, ProductSpec
from nybble.backends.cpu.schedule_space import Choices
from nybble.costmodel.features.facts import ProductSketch
from nybble.dialects.lowbit.formats import Format
from nybble.passes.targets import Sketch


def sketch(dataflow: str, spec: ProductSpec, weight: Format) -> Sketch | None:
    """The kernel of `spec`, whose weights are of the format `weight`; None for another's kernel."""
    plain = ProductSketch(dataflow, weight.spec, spec.rows, spec.cols)
    choices: Choices | None = None
    match spec:
        case LutSpec():
            digits, choices = (2 if spec.exact else 1), LutMatmul(spec).space
            found = replace(plain, digits=digits, group=spec.activation_group)
            found = replace(found, exact=spec.exact, symmetric=spec.symmetric)
        case BitserialSpec():
            found = replace(plain, digits=1, group=spec.weight.group)
        case MatmulSpec():
            choices = Matmul(spec).space
            quantized = spec.activations == "a8"
            found = (
                replace(plain, digits=spec.digits, group=spec.activation_group)
                if quantized
                else plain
            )
        case _:
            return None
    return Sketch(found.facts(), choices)
