"""Where a plan's buffers lie: fixed ones one after the other, temporary ones sharing an arena.

A temporary buffer is alive from the first to the last barrier-separated group of steps that names
it. Buffers are placed biggest first, each at the lowest offset free of those alive with it
(greedy by size: Pisarchyk and Lee 2020, "Efficient memory management for deep neural net
inference"). Programs run one at a time and so share the arena, but for a buffer that several of
them name: it keeps its place and contents throughout.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nybble.backends.cpu.plan import TEMPORARY, Buffer, Kind, Plan

ALIGNMENT = 64


@dataclass(frozen=True)
class Placement:
    """offsets: buffer name -> byte offset, a multiple of 64; bytes: what they need together."""

    offsets: Mapping[str, int]
    bytes: int


def aligned(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def in_order(buffers: Iterable[Buffer]) -> Placement:
    """Each buffer after the one before it."""
    offsets: dict[str, int] = {}
    end = 0
    for buffer in buffers:
        offsets[buffer.name] = end
        end += aligned(buffer.bytes)
    return Placement(offsets, end)


def weights(plan: Plan) -> Placement:
    """The place of every weight in the weights file."""
    return in_order(plan.of_kind(Kind.WEIGHT))


def states(plan: Plan) -> Placement:
    """The place of every state buffer in their memory."""
    return in_order(plan.of_kind(Kind.STATE))


def io(plan: Plan) -> Placement:
    """The place of every io buffer in their memory."""
    return in_order(plan.of_kind(Kind.IO))


def temporaries(plan: Plan) -> Placement:
    """The place of every arena and scratch buffer that a program names, in the arena."""
    lives = _lives(plan)
    placed: list[_Placed] = []
    temporary = [buffer for buffer in plan.of_kind(*TEMPORARY) if buffer.name in lives]
    for buffer in sorted(temporary, key=lambda buffer: -buffer.bytes):
        life = lives[buffer.name]
        near = sorted((other for other in placed if other.life & life), key=lambda p: p.start)
        start = _lowest_gap(near, aligned(buffer.bytes))
        placed.append(_Placed(buffer.name, life, start, start + aligned(buffer.bytes)))
    end = max((place.stop for place in placed), default=0)
    return Placement({place.name: place.start for place in placed}, end)


@dataclass(frozen=True)
class _Placed:
    """life: bit i is set if the buffer is alive in group i of the plan's steps."""

    name: str
    life: int
    start: int
    stop: int


def _lowest_gap(near: Iterable[_Placed], size: int) -> int:
    start = 0
    for other in near:
        if start + size <= other.start:
            break
        start = max(start, other.stop)
    return start


def _lives(plan: Plan) -> dict[str, int]:
    """Buffer name -> the groups of steps, over all programs in turn, in which it is alive."""
    lives: dict[str, int] = {}
    group = 0
    for program in plan.programs:
        first: dict[str, int] = {}
        for step in program.steps:
            for ref in step.args:
                scratch = plan.buffer_table[ref.buffer].kind is Kind.SCRATCH
                start = group if scratch else first.setdefault(ref.buffer, group)
                alive = (2 << group) - (1 << start)
                lives[ref.buffer] = lives.get(ref.buffer, 0) | alive
            group += step.barrier
        group += 1
    always = (1 << group) - 1
    kept = {buffer.name for buffer in plan.of_kind(Kind.ARENA)} & plan.shared_between_programs
    return lives | dict.fromkeys(kept, always)
