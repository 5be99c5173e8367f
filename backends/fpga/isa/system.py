"""What a model does on an FPGA: how long prompts and answers take, by the simulator of the stream.

Nothing here is measured on hardware: all figures are modelled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from nybble.backends.fpga.isa.compiler import Step, compile_step
from nybble.backends.fpga.isa.energy import energy
from nybble.backends.fpga.isa.plan import Plan
from nybble.backends.fpga.isa.store import decode_step, prefill_step
from nybble.backends.fpga.isa.timing import Timing, simulate
from nybble.dialects.errors import NybbleError


@lru_cache(maxsize=512)
def timing(plan: Plan, step: Step) -> Timing:
    """The time of a step of a model; prompts and answers of other lengths share buckets."""
    return simulate(plan.machine, compile_step(plan, step))


@dataclass(frozen=True)
class Service:
    """A prompt of some tokens and an answer of some, one text at a time."""

    plan: Plan
    prompt: int
    answer: int

    def __post_init__(self) -> None:
        if self.prompt < 1 or self.answer < 1 or self.prompt + self.answer > self.plan.context:
            raise NybbleError(
                f"a prompt of {self.prompt} and an answer of {self.answer} tokens",
                accepted=f"1 or more each, and up to {self.plan.context} together, the context",
            )

    @cached_property
    def prefill(self) -> Timing:
        """Of the whole prompt, up to the logits of its last token."""
        return timing(self.plan, prefill_step(self.plan, self.prompt))

    @cached_property
    def decodes(self) -> tuple[tuple[int, Timing], ...]:
        """How many tokens are written in each bucket, and the time of one."""
        return tuple(
            (count, timing(self.plan, decode_step(length))) for length, count in self._lengths()
        )

    def _lengths(self) -> Iterator[tuple[int, int]]:
        """Each bucket of the answer and its tokens: the first sees the prompt and itself."""
        length, last = self.prompt + 1, self.prompt + self.answer
        while length <= last:
            end = min(decode_step(length).context, last)
            yield length, end - length + 1
            length = end + 1

    @property
    def decode_seconds(self) -> float:
        """Of the whole answer."""
        return sum(count * one.seconds for count, one in self.decodes)

    @property
    def tokens_per_second(self) -> float:
        """Of the answer."""
        return self.answer / self.decode_seconds

    @property
    def bandwidth_utilisation(self) -> float:
        """Bytes of the answer over what memory could move at its peak in the same time."""
        moved = sum(count * (one.read + one.written) for count, one in self.decodes)
        return moved / (self.decode_seconds * self.plan.machine.peak)

    def energy(self) -> dict[str, float]:
        """Kind of work -> joules of one token of the answer, on average."""
        found: dict[str, float] = {}
        for count, one in self.decodes:
            for name, joules in energy(self.plan.machine, one).items():
                found[name] = found.get(name, 0.0) + count * joules / self.answer
        return found
