"""Compiling an MLIR file of sparse products for the accelerator: ELF files and a manifest."""

import json
from dataclasses import asdict

from xdsl.dialects.builtin import DYNAMIC_INDEX

from nybble.backends.llvm.toolchain import versions
from nybble.backends.llvm.workers import close_idle
from nybble.backends.spgemm.choose import sized
from nybble.backends.spgemm.image import Setup
from nybble.backends.spgemm.machine import find_machine
from nybble.backends.spgemm.problem import PROBLEM, Word
from nybble.backends.spgemm.program import ELEMENTS, compiled
from nybble.backends.spgemm.rv.frame import PROFILES
from nybble.backends.spgemm.rv.symbols import addresses
from nybble.dialects.errors import NybbleError
from nybble.dialects.spgemm.ops import MatmulOp
from nybble.dialects.spgemm.schedule import PRESETS, Schedule
from nybble.dialects.spgemm.types import SparseTensorType
from nybble.passes.convert_spgemm_to_program import MASKED, check_supported
from nybble.tools.diagnostics import UsageError
from nybble.tools.folder import check_folder, write_folder
from nybble.tools.mlir_file import FIRST, functions_of, is_mlir, read_module
from nybble.tools.target import CompileRequest

MANIFEST = "manifest.json"
LARGEST_FRAGMENT = 1 << 14
"""Columns up to which each hart of 64 has a pointer for every one."""


def compile_for_spgemm(request: CompileRequest) -> None:
    """Write a directory with an ELF file for each function and profile, and a manifest."""
    request.refuse()
    if not is_mlir(request.model):
        raise UsageError(f"'{request.model[:60]}' for {request.target}", accepted="FILE.mlir")
    if request.start not in (None, FIRST) or request.stop is not None:
        raise UsageError(f"stages of target {request.target}", accepted=f"from {FIRST} to the end")
    output = request.folder()
    check_folder(output, MANIFEST)
    module = read_module(request.model, FIRST, request.session)
    machine = find_machine(request.target.level)
    setup = Setup(int(machine.threads.value), scratchpad=int(machine.scratchpad.value))
    files: dict[str, bytes] = {}
    programs: list[dict[str, object]] = []
    try:
        for name, function in functions_of(module).items():
            products = [op for op in function.walk() if isinstance(op, MatmulOp)]
            if len(products) != 1:
                raise NybbleError(
                    f"function '{name}' has {len(products)} products", accepted="spgemm.matmul once"
                )
            how, element = schedule_of(products[0], setup)
            made = {profile: compiled(how, element, profile) for profile in PROFILES}
            names = {profile: f"{name}.{profile}.elf" for profile in made}
            files |= {names[profile]: elf for profile, elf in made.items()}
            programs.append({
                "name": name, "element": element, "schedule": asdict(how), "files": names,
                "entry": addresses(made[PROFILES[0]])["_start"],
            })  # fmt: skip
    finally:
        close_idle()
    manifest = {
        "target": str(request.target), "compiler": versions(), "problem": PROBLEM,
        "descriptor": {word.name.lower(): int(word) for word in Word}, "programs": programs,
    }  # fmt: skip
    files[MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode()
    write_folder(output, files, MANIFEST)


def schedule_of(product: MatmulOp, setup: Setup) -> tuple[Schedule, str]:
    """A schedule for matrices that are not there yet, and the name of the element type.

    Fragments where every hart has a pointer for each column, else a table of all harts; with a mask
    always fragments, which take as many columns at a time as there is room for.
    """
    check_supported(product)
    type_ = product.result.type
    assert isinstance(type_, SparseTensorType)
    element = type_.value_name
    width = 4 if element == "f32" else 8
    known = type_.cols != DYNAMIC_INDEX and type_.cols <= LARGEST_FRAGMENT
    how = PRESETS["v3" if known else "v2"]
    if product.mask is not None:
        how = Schedule(accumulator=MASKED, transfer="dma")
    assert element in ELEMENTS
    shape = (LARGEST_FRAGMENT, type_.cols if known else LARGEST_FRAGMENT)
    return sized(how, shape, width, setup), element
