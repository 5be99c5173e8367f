"""Writing sizes that were chosen before into the schedules of a module's kernels.

This is no pass: what was chosen comes from a database, and a pass has no files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from xdsl.ir import Operation

from nybble.costmodel.canonical import canonical
from nybble.costmodel.data.schedules import Entry, key_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.passes.targets import Target
from nybble.passes.tile_kernels import TOKENS, write


@dataclass
class Applied:
    """count: of kernels that got a schedule. warnings: entries that fit a kernel no longer."""

    count: int = 0
    warnings: list[str] = field(default_factory=list[str])


def kernel_key(kernel: KernelOp) -> str:
    """The key of a scheduled kernel in a database."""
    tokens = kernel.schedule.option(TOKENS) if kernel.schedule is not None else None
    return key_of(canonical(kernel), tokens or 1)


def apply_schedules(
    module: Operation, entries: Mapping[str, Entry], target: Target, isa: str, threads: int
) -> Applied:
    """Give every kernel the sizes of its entry; one that is not legal any more is left alone."""
    done = Applied()
    for kernel in [one for one in module.walk() if isinstance(one, KernelOp)]:
        entry = entries.get(kernel_key(kernel)) if kernel.schedule is not None else None
        if entry is None:
            continue
        choices = target.choices(kernel, isa, threads)
        try:
            if choices is None:
                raise NybbleError("it has no sizes to choose any more")
            choices.settle(entry.options)
        except NybbleError as fault:
            done.warnings.append(
                f'the schedule of kernel "{kernel.kernel_name.data}" is stale and not applied: '
                f"{fault.message}"
            )
            continue
        write(kernel, entry.options, entry.because)
        done.count += 1
    return done
