"""A model's plan, executed launch by launch in the simulator."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.model.lower import LENGTHS, LOGITS, NEXT, POSITION
from nybble.backends.gpu.model.plan import WEIGHT, GpuPlan, PlanError
from nybble.backends.gpu.sim.simulate import simulate

U8 = npt.NDArray[np.uint8]


class SimulatedModel:
    """A model with its memory. `position`: tokens that it was fed."""

    def __init__(self, plan: GpuPlan, weights: Mapping[str, U8]) -> None:
        """weights: the bytes of each weight buffer; raises PlanError for a wrong size."""
        self.plan = plan
        self.position = 0
        self.memory: dict[str, U8] = {}
        for buffer in plan.buffers.values():
            if buffer.kind != WEIGHT:
                self.memory[buffer.name] = np.zeros(buffer.bytes, np.uint8)
                continue
            given = weights.get(buffer.name)
            if given is None or given.nbytes != buffer.bytes:
                size = "none" if given is None else given.nbytes
                raise PlanError(
                    f"weight '{buffer.name}' has {size} bytes", accepted=str(buffer.bytes)
                )
            self.memory[buffer.name] = given

    def feed(self, token: int) -> npt.NDArray[np.float32]:
        """The logits f32 [vocabulary] after one more token; PlanError past the context."""
        context = int(self.plan.facts["context"])
        if self.position >= context:
            raise PlanError(f"token {self.position}", accepted=f"{context} tokens at most")
        given = {"ids": token, POSITION: self.position, LENGTHS: self.position + 1}
        for name, value in given.items():
            self.memory[name].view(np.int32)[0] = value
        for launch in self.plan.launches:
            image = self.plan.images[launch.kernel]
            pairs = zip(image.parameters, launch.buffers, strict=True)
            arguments = {
                parameter.name: self.memory[name][: parameter.bytes] for parameter, name in pairs
            }
            simulate(image, arguments).check()
        self.position += 1
        return self.memory[LOGITS].view(np.float32).copy()

    @property
    def next_token(self) -> int:
        """The likeliest token, as the GPU chose it."""
        return int(self.memory[NEXT].view(np.int32)[0])
