"""From instructions to closures: a table of all opcodes, guards, and warps that must be whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim.builder import Builder
from nybble.backends.gpu.sim.lanes import WARP, Action, Flow, Lanes, Reader
from nybble.backends.gpu.sim.machine import Machine
from nybble.backends.gpu.sim.ops import (
    bits,
    control,
    copy,
    floating,
    integer,
    lookup,
    matrix,
    mbarrier,
    memory,
    movement,
    warp,
    warpgroup,
)
from nybble.backends.gpu.sim.ptx import Number
from nybble.backends.gpu.sim.registers import IN_FLIGHT, UNDEFINED
from nybble.backends.gpu.sim.types import Array
from nybble.backends.gpu.sim.warpgroups import SIZE

OPCODES: dict[str, Callable[[Builder], Action]] = {
    **integer.TABLE,
    **bits.TABLE,
    **floating.TABLE,
    **movement.TABLE,
    **memory.TABLE,
    **control.TABLE,
    **warp.TABLE,
    **copy.TABLE,
    **matrix.TABLE,
    **lookup.TABLE,
    **mbarrier.TABLE,
    **warpgroup.TABLE,
}

_CARRYING = {**integer.TABLE, **bits.TABLE, **floating.TABLE, "mov": 0, "cvt": 0}
"""Opcodes whose results have no value where their operands have none."""
_MASK_OPERAND = {"shfl": -1, "vote": -1, "match": -1, "redux": -1, "elect": -1}
_WHOLE_WARP = "aligned"
_EVERYONE = 0xFFFFFFFF


def program(machine: Machine, file: str) -> list[Action]:
    """The actions of a kernel's instructions; PtxError names the line of what is not modelled."""
    return [action(machine, pc, file) for pc in range(len(machine.entry.instructions))]


def action(machine: Machine, pc: int, file: str) -> Action:
    """The action of one instruction."""
    b = Builder(machine, pc, file)
    opcode = b.instruction.opcode
    if opcode not in OPCODES:
        raise b.fail(f"instruction '{b.instruction}' is not modelled")
    b.carries = opcode in _CARRYING
    made = OPCODES[opcode](b)
    if b.carries and b.inputs:
        made = _carried(b, made)
    b.carries = False
    b.ignore("sync", "aligned")
    b.finish()
    made = _gathered(b, made)
    guard = b.instruction.guard
    return _guarded(b, made, b.read(guard, "pred")) if guard is not None else made


def _carried(b: Builder, made: Action) -> Action:
    """Mark the results of operands that have no value."""
    inputs, outputs = b.inputs, b.outputs

    def run(lanes: Lanes) -> None:
        hazard: Array | None = None
        for register in inputs:
            if register.hazard is not None:
                found = register.hazard_of(lanes.index)
                if found is not None:
                    hazard = found if hazard is None else np.maximum(hazard, found)
        made(lanes)
        if hazard is None:
            return
        if (hazard > UNDEFINED).any():
            b.check_hazard(inputs[0], hazard & IN_FLIGHT)
        for register in outputs:
            register.mark(lanes.index, hazard & UNDEFINED)

    return run


def _guarded(b: Builder, made: Action, guard: Reader) -> Action:
    """Only the threads whose predicate is set do it; the others go on."""
    following = b.pc + 1

    def run(lanes: Lanes) -> Flow | None:
        mask = guard(lanes)
        if mask.all():
            return made(lanes)
        if not mask.any():
            return None
        some, others = lanes.split(mask)
        flow = made(some)
        return None if flow is None else [*flow, (following, others)]

    return run


def _gathered(b: Builder, made: Action) -> Action:
    """Instructions of a warp wait until its threads are there: all, or those of a mask."""
    modifiers = b.instruction.modifiers
    opcode = b.instruction.opcode
    is_warp = opcode == "bar" and "warp" in modifiers
    if not is_warp and (opcode in ("bar", "barrier") or "sync" not in modifiers):
        return made
    members: Reader | None = None
    if opcode in _MASK_OPERAND or is_warp:
        operand = b.operand(len(b) - 1)
        if not (isinstance(operand, Number) and operand.value & _EVERYONE == _EVERYONE):
            members = b.read(operand, "u32")
    threads, pc = b.machine.threads, b.pc
    span = SIZE if opcode == "wgmma" else WARP

    def run(lanes: Lanes) -> Flow | None:
        whole = threads.gather(pc, lanes, members, span)
        if whole is None:
            return []
        flow = made(whole)
        return [(pc + 1, whole)] if flow is None and whole is not lanes else flow

    return run
