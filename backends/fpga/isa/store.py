"""The streams of a model for all lengths, in buckets, and what one for each length would take.

Length-adaptive compilation (FlightLLM): answers share a stream with those of the same bucket of 16
tokens, prompts of 128; layers share it by bases that advance; one instruction moves data through
all channels. Without any of that, each length has a stream of its own, each layer its own
instructions, and each channel its own loads and stores.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nybble.backends.fpga.isa.compiler import Step, compile_step, spread_bytes
from nybble.backends.fpga.isa.encoding import Instruction
from nybble.backends.fpga.isa.matrix import up
from nybble.backends.fpga.isa.plan import Plan

DECODE_BUCKET = 16
PREFILL_BUCKET = 128


def decode_step(length: int) -> Step:
    """The step of the bucket of a token that sees `length` tokens, itself among them."""
    return Step(1, 1, up(length, DECODE_BUCKET))


def prefill_step(plan: Plan, length: int) -> Step:
    """The step of the bucket of a prompt."""
    tokens = min(plan.machine.matrix_tokens, PREFILL_BUCKET)
    whole = up(length, PREFILL_BUCKET)
    return Step(tokens, whole // tokens, whole)


def buckets(plan: Plan) -> Iterator[tuple[str, Step]]:
    """Name and step of each stream for all lengths up to the plan's context."""
    for length in range(DECODE_BUCKET, plan.context + 1, DECODE_BUCKET):
        yield f"decode_{length}", decode_step(length)
    for length in range(PREFILL_BUCKET, plan.context + 1, PREFILL_BUCKET):
        yield f"prefill_{length}", prefill_step(plan, length)


def stream_bytes(program: Iterable[Instruction]) -> int:
    """Bytes of a stream."""
    return sum(one.layout.bytes for one in program)


@dataclass(frozen=True)
class Store:
    """Streams by name, and bytes that a stream for each length, layer and channel would take."""

    streams: Mapping[str, tuple[Instruction, ...]]
    per_length: int

    @property
    def bytes(self) -> int:
        """Of all streams."""
        return sum(stream_bytes(one) for one in self.streams.values())


def compile_all(plan: Plan) -> Store:
    """The streams for all lengths, and the bytes that they save."""
    streams: dict[str, tuple[Instruction, ...]] = {}
    whole = 0
    for name, step in buckets(plan):
        streams[name] = compile_step(plan, step)
        lengths = DECODE_BUCKET if step.decodes else PREFILL_BUCKET
        whole += lengths * spread_bytes(plan, step)
    return Store(streams, whole)
