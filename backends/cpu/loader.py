"""Object code into this process, without a linker: LLVM's run-time linker from llvmlite."""

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu.elf import ObjectError, symbols
from nybble.backends.cpu.machine import native

if TYPE_CHECKING:
    from llvmlite.binding.executionengine import ExecutionEngine

# Found in every process of the systems we run on; anything else would end the process.
PROCESS_SYMBOLS = frozenset({"memcpy", "memmove", "memset"})

Argument = NDArray[np.generic] | int


@dataclass(frozen=True)
class Library:
    """Loaded object code; the code lives as long as this object does.

    names: the functions that can be called.
    """

    names: frozenset[str]
    _engine: "ExecutionEngine" = field(repr=False)
    _addresses: dict[str, int] = field(default_factory=dict[str, int], repr=False, compare=False)

    def symbol(self, name: str) -> int:
        """The address of the function `name`; raises ObjectError if there is none."""
        if name not in self.names:
            raise ObjectError(
                f"no function '{name}' in the object code", accepted=", ".join(sorted(self.names))
            )
        if name not in self._addresses:
            self._addresses[name] = self._engine.get_function_address(name)
        return self._addresses[name]

    def call(self, name: str, *arguments: Argument) -> None:
        """Calls a `void` function with pointers to arrays (C-contiguous) and 64-bit integers."""
        values: list[ctypes.c_void_p | ctypes.c_int64] = []
        for argument in arguments:
            if isinstance(argument, int):
                values.append(ctypes.c_int64(argument))
                continue
            if not argument.flags.c_contiguous:
                raise ObjectError(f"argument {len(values)} of '{name}' is not C-contiguous")
            values.append(ctypes.c_void_p(argument.ctypes.data))
        ctypes.CFUNCTYPE(None)(self.symbol(name))(*values)


def load(objects: Iterable[bytes], allowed: Iterable[str] = ()) -> Library:
    """Links object files with each other and loads them; their functions become callable.

    allowed: names to look up in the process besides what the code generator itself may call.
    Raises ObjectError for a damaged object, one of another machine, a missing symbol, or one
    that two objects define: LLVM's linker would end the process.
    """
    files = list(objects)
    names = _checked(files, PROCESS_SYMBOLS | set(allowed))
    import llvmlite.binding as llvm  # 0.1 s, and not needed to compile

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    for data in files:
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return Library(names, engine)


def _checked(files: Sequence[bytes], provided: frozenset[str]) -> frozenset[str]:
    names: set[str] = set()
    needed: set[str] = set()
    host = native().architecture
    for data in files:
        found = symbols(data)
        if found.machine != host:
            raise ObjectError(f"object code for {found.machine}", accepted=f"code for {host}")
        twice = names & found.defined
        if twice:
            raise ObjectError(f"two objects define '{min(twice)}'")
        names |= found.defined
        needed |= found.undefined
    missing = needed - names - provided
    if missing:
        raise ObjectError(f"the object code needs '{min(missing)}', which nothing provides")
    return frozenset(names)
