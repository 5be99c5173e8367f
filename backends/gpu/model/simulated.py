"""A model's plan, executed launch by launch in the simulator."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.model.lower import IDS, LOGITS, NEXT, POSITION
from nybble.backends.gpu.model.plan import WEIGHT, GpuPlan, PlanError
from nybble.backends.gpu.sim.simulate import simulate
from nybble.backends.gpu.steps.step import LAST, LENGTHS

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

    def feed(self, *tokens: int) -> npt.NDArray[np.float32]:
        """The logits f32 [vocabulary] after more tokens; PlanError past the context.

        Several are taken at once where the plan can and the context has room for its most.
        """
        context, most = int(self.plan.facts["context"]), self.plan.tokens
        if self.position + len(tokens) > context:
            raise PlanError(
                f"token {self.position + len(tokens) - 1}", accepted=f"{context} tokens at most"
            )
        rest = list(tokens)
        while rest:
            together = len(rest) > 1 and most > 1 and self.position + most <= context
            now, rest = (rest[:most], rest[most:]) if together else (rest[:1], rest[1:])
            self._run(now, most if together else 1)
        return self.memory[LOGITS].view(np.float32).copy()

    def _run(self, tokens: list[int], rows: int) -> None:
        """Tokens of the program for so many."""
        given = {POSITION: self.position, LENGTHS: self.position + rows, LAST: len(tokens) - 1}
        for name, value in given.items():
            if name in self.memory:
                self.memory[name].view(np.int32)[0] = value
        ids = self.memory[IDS].view(np.int32)
        ids[:] = 0
        ids[: len(tokens)] = tokens
        for launch in self.plan.launches if rows == 1 else self.plan.prompt:
            image = self.plan.images[launch.kernel]
            pairs = zip(image.parameters, launch.buffers, strict=True)
            arguments = {
                parameter.name: self.memory[name][: parameter.bytes] for parameter, name in pairs
            }
            simulate(image, arguments).check()
        self.position += len(tokens)

    @property
    def next_token(self) -> int:
        """The likeliest token, as the GPU chose it."""
        return int(self.memory[NEXT].view(np.int32)[0])
