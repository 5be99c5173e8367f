"""How many words the FIFOs behind a fork must hold so that a network never stops.

Two ways from a fork meet again in a process that reads both. If one of them has to take many words
before its first result comes (a norm takes a row), the other one's words wait. All that a process
reads before it writes follows from its attributes (`ProcessOp.leads`), so that the wait can be
counted: no depth is a guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from xdsl.ir import SSAValue
from xdsl.rewriter import Rewriter

from nybble.backends.fpga.analysis import FILL
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.rows import ForkOp, stream_type

SLACK = 2
"""Words that any FIFO holds."""


def set_depths(kernel: KernelOp) -> None:
    """Give each FIFO behind a fork the depth that it needs."""
    for fork in [op for op in kernel.processes if isinstance(op, ForkOp)]:
        most = stream_type(fork.input).words.data
        for copy, wait in waiting(kernel, fork).items():
            depth = SLACK + min(wait.words + FILL * wait.stages, most)
            Rewriter.replace_value_with_new_type(copy, stream_type(copy).with_depth(depth))


@dataclass(frozen=True)
class Wait:
    """What waits for another way: so many words, and for so many processes more on the way.

    Without room for the words a network stops. With room for what comes while those processes'
    pipelines are full, FILL cycles each, it also goes on in each cycle.
    """

    words: int = 0
    stages: int = 0

    def then(self, lead: int, total: int, stream: SSAValue) -> "Wait":
        """For `lead` words of a stream whose first one needs this, of a fork of `total` words."""
        more = ceil((lead - 1) * total / stream_type(stream).words.data)
        return Wait(min(self.words + more, total), self.stages)


def waiting(kernel: KernelOp, fork: ForkOp) -> dict[SSAValue, Wait]:
    """What waits in each of a fork's results, at most.

    needs: of a stream, how many words the fork has taken when its first word can come, and through
    how many processes; sources: from which results of the fork that is.
    """
    copies: Sequence[SSAValue] = fork.copies
    waits: dict[SSAValue, Wait] = {one: Wait() for one in copies}
    needs: dict[SSAValue, Wait] = {one: Wait(1, 0) for one in copies}
    sources: dict[SSAValue, frozenset[SSAValue]] = {one: frozenset({one}) for one in copies}
    total = stream_type(fork.input).words.data
    for op in kernel.processes:
        found = {
            operand: needs[operand].then(lead, total, operand)
            for operand, lead in zip(op.streams, op.leads(), strict=True)
            if operand in needs
        }
        if not found:
            continue
        words = max(one.words for one in found.values())
        stages = max(one.stages for one in found.values())
        last = [sources[operand] for operand, one in found.items() if one.words == words]
        for operand, one in found.items():
            for copy in sources[operand].difference(*last):
                known = waits[copy]
                waits[copy] = Wait(
                    max(known.words, words - one.words), max(known.stages, stages - one.stages)
                )
        whole = frozenset[SSAValue]().union(*(sources[operand] for operand in found))
        needs |= dict.fromkeys(op.results, Wait(words, stages + 1))
        sources |= dict.fromkeys(op.results, whole)
    return waits
