"""Products of 16-bit activations: weights are decoded to such floats in registers."""

from nybble.backends.building.values import Value
from nybble.backends.gpu.kernels.matmul.decode import decoder
from nybble.backends.gpu.kernels.matmul.record import Multiplier, Record
from nybble.backends.gpu.kernels.matmul.spec import FlatSpec
from nybble.backends.gpu.kernels.matmul.stored import Tokens
from nybble.backends.gpu.kernels.matmul.stream import StreamKernel


class FlatKernel(StreamKernel[list[Tokens]]):
    """See StreamKernel."""

    def __init__(self, spec: FlatSpec, name: str):
        super().__init__(spec, name)
        decodes = decoder(self.b, self.layout.placement, spec.half, spec.kind.meaning)
        self.multiplier = Multiplier(self.b, spec, decodes, self.lane)
        self.factor = decodes.factor * spec.kind.unit

    def activations(self, job: Value) -> list[Tokens]:
        """See StreamKernel."""
        return self.tokens(job)

    def record(self, place: Value, activations: list[Tokens], step: Value) -> Record:
        """See StreamKernel."""
        return Record(self.multiplier, place, activations, step)

    def finished(self, token: Value, value: Value) -> Value:
        """See StreamKernel."""
        return value * self.factor if self.factor != 1.0 else value
