"""What an instruction is turned into a closure with: readers and writers of its operands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.lanes import Lanes, Reader, Writer
from nybble.backends.gpu.sim.machine import Machine
from nybble.backends.gpu.sim.ptx import (
    Address,
    Group,
    Instruction,
    Name,
    Number,
    Operand,
    PtxError,
    place,
)
from nybble.backends.gpu.sim.registers import UNDEFINED, Register
from nybble.backends.gpu.sim.types import SIGNED, UNSIGNED, Array, Scalar, is_type, scalar

_CLOCKS = ("clock", "clock_hi", "clock64", "globaltimer", "globaltimer_lo", "globaltimer_hi")


class Builder:
    """One instruction of a machine. Every modifier must be asked for, or it is not modelled.

    pc: index of the instruction. carries: whether a result of registers without a value is just as
    well without one, instead of wrong; inputs, outputs: the registers then read and written.
    """

    def __init__(self, machine: Machine, pc: int, file: str) -> None:
        self.machine = machine
        self.pc = pc
        self.file = file
        self.instruction: Instruction = machine.entry.instructions[pc]
        self.modifiers = list(self.instruction.modifiers)
        self.unread = set(range(len(self.modifiers)))
        self.carries = False
        self.inputs: list[Register] = []
        self.outputs: list[Register] = []

    # -- modifiers

    def has(self, *names: str) -> bool:
        """Whether one of these modifiers is there."""
        found = [i for i, modifier in enumerate(self.modifiers) if modifier in names]
        self.unread.difference_update(found)
        return bool(found)

    def ignore(self, *names: str) -> None:
        """Accept modifiers that change nothing here; one ends with `*` for any ending."""
        for i, modifier in enumerate(self.modifiers):
            if any(
                modifier == name or (name[-1:] == "*" and modifier.startswith(name[:-1]))
                for name in names
            ):
                self.unread.discard(i)

    def one_of(self, *names: str, default: str | None = None) -> str:
        """The first of the instruction's modifiers that is among these."""
        for i, modifier in enumerate(self.modifiers):
            if modifier in names:
                self.unread.discard(i)
                return modifier
        if default is None:
            raise self.fail(f"'{self.instruction}' needs one of .{', .'.join(names)}")
        return default

    def types(self) -> list[Scalar]:
        """The types among the modifiers, in order."""
        found: list[Scalar] = []
        for i, modifier in enumerate(self.modifiers):
            if is_type(modifier):
                self.unread.discard(i)
                found.append(scalar(modifier))
        return found

    def type(self) -> Scalar:
        """The one type among the modifiers."""
        found = self.types()
        if not found:
            raise self.fail(f"'{self.instruction}' has no type")
        if len(found) > 1:
            names = ", .".join(one.name for one in found)
            raise self.fail(f"'{self.instruction}' of types .{names} is not modelled")
        return found[0]

    def space(self) -> str:
        """The state space, "" for generic addresses."""
        for i, modifier in enumerate(self.modifiers):
            name = modifier.split("::")[0]
            if name in ("global", "shared", "local", "param", "const"):
                self.unread.discard(i)
                return name
        return ""

    def finish(self) -> None:
        """Raise PtxError if a modifier was not asked for."""
        if self.unread:
            left = ", .".join(self.modifiers[i] for i in sorted(self.unread))
            raise self.fail(f"'.{left}' of '{self.instruction}' is not modelled")

    def fail(self, message: str) -> PtxError:
        """An error at the instruction."""
        return PtxError(message, location=place(self.file, self.instruction.line))

    # -- operands

    def __len__(self) -> int:
        return len(self.instruction.operands)

    def operand(self, index: int) -> Operand:
        """An operand; PtxError if there are not so many."""
        if index >= len(self):
            raise self.fail(f"'{self.instruction}' has {len(self)} operands, too few")
        return self.instruction.operands[index]

    def items(self, index: int) -> tuple[Operand, ...]:
        """The parts of a group, or the one operand."""
        operand = self.operand(index)
        return operand.items if isinstance(operand, Group) else (operand,)

    def number(self, index: int) -> int:
        """An immediate."""
        operand = self.operand(index)
        if isinstance(operand, Number):
            return operand.value
        raise self.fail(f"operand {index + 1} of '{self.instruction}' must be a number")

    def source(self, index: int, type_: Scalar | str) -> Reader:
        """A reader of an operand: arrays of the type's numpy type, a scalar of a constant."""
        return self.read(self.operand(index), type_)

    def sources(self, index: int, type_: Scalar | str) -> list[Reader]:
        """Readers of the parts of a group."""
        return [self.read(item, type_) for item in self.items(index)]

    def target(self, index: int, type_: Scalar | str) -> Writer:
        """A writer of a register."""
        return self.write(self.operand(index), type_)

    def targets(self, index: int, type_: Scalar | str) -> list[Writer]:
        """Writers of the parts of a group."""
        return [self.write(item, type_) for item in self.items(index)]

    def read(self, operand: Operand, type_: Scalar | str) -> Reader:
        """A reader of an operand."""
        wanted = scalar(type_) if isinstance(type_, str) else type_
        if isinstance(operand, Number):
            constant = self._constant(operand, wanted)
            return lambda lanes: constant
        if not isinstance(operand, Name):
            raise self.fail(f"'{self.instruction}' cannot read such an operand")
        if operand.text in self.machine.registers:
            return self._read_register(operand, wanted)
        return self._read_symbol(operand.text, wanted)

    def register(self, operand: Operand) -> Register:
        """The register that an operand names."""
        if isinstance(operand, Name) and operand.text in self.machine.registers:
            return self.machine.registers[operand.text]
        raise self.fail(f"'{self.instruction}' needs a register")

    def maybe_register(self, index: int) -> Register | None:
        """The register that an operand names, or None if it names none."""
        operand = self.operand(index)
        is_one = isinstance(operand, Name) and operand.text in self.machine.registers
        return self.register(operand) if is_one else None

    def _constant(self, operand: Number, wanted: Scalar) -> Array:
        if wanted.kind == "pred":
            return np.asarray(operand.value != 0)[()]
        bits = operand.value & ((1 << wanted.bits) - 1)
        if operand.float_bits and operand.float_bits != wanted.bits:
            source = UNSIGNED[operand.float_bits](operand.value)
            value = source.view(np.float64 if operand.float_bits == 64 else np.float32)
            return value.astype(wanted.dtype)
        return wanted.storage(bits).view(wanted.dtype)

    def _read_register(self, operand: Name, wanted: Scalar) -> Reader:
        register = self.machine.registers[operand.text]
        check = self._check_register
        if self.carries:
            self.inputs.append(register)
        if (register.type.kind == "pred") != (wanted.kind == "pred"):
            raise self.fail(f"'{operand.text}' is a .{register.type.name} register")
        data = register.data
        if wanted.kind == "pred":
            negated = operand.negated
            take: Reader = lambda lanes: ~data[lanes.index] if negated else data[lanes.index]  # noqa: E731
        elif wanted.bits == register.type.bits:
            view = data.view(wanted.dtype)
            take = lambda lanes: view[lanes.index]  # noqa: E731
        else:
            dtype, storage = wanted.dtype, wanted.storage
            take = lambda lanes: data[lanes.index].astype(storage).view(dtype)  # noqa: E731
        if self.carries:
            return take

        def read(lanes: Lanes) -> Array:
            if register.hazard is not None:
                check(register, lanes)
            return take(lanes)

        return read

    def _check_register(self, register: Register, lanes: Lanes) -> None:
        assert register.hazard is not None
        self.check_hazard(register, register.hazard[lanes.index])

    def check_hazard(self, register: Register, found: Array) -> None:
        """Report what is found in the hazards of a register."""
        if not found.any():
            return
        reporter = self.machine.reporter
        if (found == UNDEFINED).any():
            text = f"reads register {register.name}, which has no value"
            reporter.findings.add(Kind.UNINITIALIZED, self.instruction.line, text)
        if (found > UNDEFINED).any():
            text = f"uses register {register.name} before wgmma.wait_group"
            reporter.findings.add(Kind.ASYNC, self.instruction.line, text)

    def check_held(self, register: Register, held: Array) -> None:
        """Report a write of a register for threads of which an operation in flight uses it."""
        if held.any():
            text = f"writes register {register.name} before wgmma.wait_group"
            self.machine.reporter.findings.add(Kind.ASYNC, self.instruction.line, text)

    def _read_symbol(self, name: str, wanted: Scalar) -> Reader:
        machine = self.machine
        special = name.removeprefix("%")
        if name in machine.symbols:
            value = wanted.storage(machine.symbols[name][1] & ((1 << wanted.bits) - 1))
            constant = value.view(wanted.dtype)
            return lambda lanes: constant
        if special in machine.grid.special:
            view = machine.grid.special[special].astype(wanted.storage)
            return lambda lanes: view[lanes.index]
        if special in _CLOCKS:
            storage = wanted.storage
            mask = (1 << wanted.bits) - 1
            return lambda lanes: storage(machine.order.now & mask)
        sizes = {
            "WARP_SZ": 32,
            "dynamic_smem_size": machine.dynamic_shared,
            "total_smem_size": machine.shared.size,
        }
        if special in sizes:
            size = wanted.storage(sizes[special])
            return lambda lanes: size
        raise self.fail(f"'{name}' is neither a register nor a variable that is modelled")

    def write(self, operand: Operand, type_: Scalar | str) -> Writer:
        """A writer of a register: sign- or zero-extends by the type where the register is wider."""
        given = scalar(type_) if isinstance(type_, str) else type_
        if isinstance(operand, Name) and operand.text == "_":
            return lambda lanes, value: None
        register = self.register(operand)
        self.outputs.append(register)
        if (register.type.kind == "pred") != (given.kind == "pred"):
            raise self.fail(f"'{register.name}' is a .{register.type.name} register")
        if register.type.bits < given.bits:
            raise self.fail(f"'{register.name}' is too narrow for .{given.name}")
        if given.bits == register.type.bits:
            view = register.data.view(given.dtype)
        else:
            tables = SIGNED if given.kind == "s" else UNSIGNED
            view = register.data.view(tables[register.type.bits])
        narrow = given.bits != register.type.bits and given.kind != "s"
        storage = given.storage

        def write(lanes: Lanes, value: Array) -> None:
            view[lanes.index] = value.view(storage) if narrow else value
            if register.held is not None:
                self.check_held(register, register.held[lanes.index])
            if register.hazard is not None or register.watched is not None:
                register.define(lanes.index, lanes.size)

        return write

    def address(self, index: int) -> Reader:
        """A reader of an address without its coordinates: int64, always one for each lane.

        A sum with a register of 32 bits has 32 bits.
        """
        operand = self.operand(index)
        if not isinstance(operand, Address):
            raise self.fail(f"operand {index + 1} of '{self.instruction}' must be an address")
        offset = operand.offset
        base = operand.base
        wide = "u64"
        if isinstance(base, Name) and base.text in self.machine.registers:
            bits = self.machine.registers[base.text].type.bits
            wide = "u64" if bits == 64 else "u32"
        read, wraps = self.read(base, wide), wide == "u32"

        def address(lanes: Lanes) -> Array:
            values = read(lanes)
            if values.ndim == 0:
                values = np.full(lanes.size, values)
            made = values.astype(np.int64) + offset
            return made & 0xFFFFFFFF if wraps else made

        return address

    def spread(self, read: Reader) -> Callable[[Lanes], Array]:
        """A reader of whole warps: [warps, 32], zeros for lanes that are not there."""
        return lambda lanes: lanes.warps.spread(full(read(lanes), lanes))


def full(value: Array, lanes: Lanes) -> Array:
    """A value for each lane, from one of a constant."""
    return np.full(lanes.size, value) if value.ndim == 0 else value
