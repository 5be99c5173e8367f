"""The compiled kernels of a specification, and the threads that they run on."""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from nybble.backends.cache import Cache
from nybble.backends.cpu.codegen import compile_module, compile_modules
from nybble.backends.cpu.isa import detect
from nybble.backends.cpu.loader import Library, load
from nybble.backends.cpu.machine import cpu_flags, native
from nybble.backends.cpu.pool import Call, Pool, StepList
from nybble.backends.cpu.runner import EXTERNALS, runner_module
from nybble.backends.cpu.spgemm import turns
from nybble.backends.cpu.spgemm.masked import Masked
from nybble.backends.cpu.spgemm.rows import Rows
from nybble.backends.cpu.spgemm.spec import Spec
from nybble.backends.cpu.spgemm.spread import Sddmm, Spmm, Spread
from nybble.backends.cpu.spgemm.structure import Cut

WORDS = 8  # of a register that groups of columns are moved in


def functions(spec: Spec) -> Mapping[str, FuncOp]:
    """Every kernel of a specification, by what it is for."""
    permute = detect(cpu_flags()).word_permute
    lanes = max(4, 32 // spec.sum_bytes)
    made: dict[str, FuncOp] = {
        "cut": Cut(spec.index_bits).build("cut"),
        "cut_at": Cut(spec.index_bits, masked=True).build("cut_at"),
        "rows": Rows(spec, permute.name if permute.lanes == WORDS else None).build("rows"),
        "masked": Masked(spec).build("masked"),
        "spread": Spread(spec).build("spread"),
        "spmm": Spmm(spec, lanes).build("spmm"),
    }
    if spec.ring == "plus_times":
        made["sddmm"] = Sddmm(spec, lanes).build("sddmm")
    return made


@cache
def kernels(spec: Spec, folder: Path | None = None) -> Library:
    """The kernels, loaded; folder: a cache of object code that is read and filled."""
    module = ModuleOp([turns.declaration(), *functions(spec).values()])
    parts = {spec.name: module, "runner": runner_module(native().architecture)}
    stored = None if folder is None else Cache(folder)
    made = compile_modules(parts, cache=stored, allowed=(turns.WAIT, *EXTERNALS))
    return load(made.values(), EXTERNALS)


def team(threads: int) -> Pool:
    """So many threads of this process, which kernels of all specifications share."""
    return _team(threads, os.getpid())


@cache
def _team(threads: int, _process: int) -> Pool:
    """Of a process: threads do not live on behind a fork."""
    data = compile_module(runner_module(native().architecture), native(), allowed=EXTERNALS)
    return Pool(load([data], EXTERNALS), threads)


def launch(
    library: Library,
    name: str,
    arrays: Sequence[NDArray[Any]],
    threads: int = 1,
) -> None:
    """Runs a kernel on so many threads; arrays: its buffers, C-contiguous, in their order."""
    pointers = tuple(array.ctypes.data for array in arrays)
    if threads == 1:
        _function(library.symbol(name), len(pointers))(*pointers, 0, 0, 0, 1)
        return
    team(threads).run(StepList([Call(library.symbol(name), pointers)]), 0, 0)


@cache
def _function(address: int, pointers: int) -> Callable[..., None]:
    """A kernel of so many pointers, and n, pos, tid, nth."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (pointers + 4))(address)
