"""Compiling an MLIR file of operators, without a model around it."""

import json
from pathlib import Path

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.archive import pack
from nybble.backends.cpu.codegen import compile_modules
from nybble.backends.cpu.machine import native
from nybble.backends.llvm.toolchain import versions
from nybble.backends.llvm.workers import close_idle
from nybble.frontend.compile_model import CompileOptions
from nybble.passes.stages import Stage, StageOrderError, stages_between
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.folder import check_folder, write_folder
from nybble.tools.mlir_file import FIRST, LAST, advance, read_module
from nybble.tools.models import kernel_cache, shown_progress

DESCRIPTION = "kernels.json"
"""The file that tells a folder of ours: stage, target, compiler, names of the kernels."""


def compile_file(
    path: str,
    output: Path,
    options: CompileOptions,
    start: str | None,
    stop: str | None,
    session: Session,
) -> None:
    """Write a directory with the IR of the last stage and, if that is `lowered`, object code."""
    first, last = start or FIRST, stop or LAST
    check_folder(output, DESCRIPTION)
    stages = stages_of(first, last)
    module = read_module(path, first, session)
    files = dump(module, first) if options.dump else {}
    reached = first
    for stage in stages:
        advance(module, reached, stage.name, options)
        reached = stage.name
        files |= dump(module, reached) if options.dump else {}
    if options.dump:
        write_folder(options.dump, files, f"{first}.mlir")
    described = {"stage": last, "target": str(native()), "compiler": versions()}
    artifact = dump(module, last)
    if last == LAST:
        try:
            code = compile_kernels(module)
        finally:
            close_idle()
        described |= {"kernels": list(code)}
        artifact["kernels.a"] = pack(list(code.values()))
    artifact[DESCRIPTION] = (json.dumps(described, indent=1) + "\n").encode()
    write_folder(output, artifact, DESCRIPTION)


def stages_of(first: str, last: str) -> tuple[Stage, ...]:
    """The stages after `first` up to `last`; UsageError where it comes before."""
    try:
        return stages_between(first, last) if first != last else ()
    except StageOrderError as error:
        raise UsageError(error.message, accepted=error.accepted) from None


def compile_kernels(module: ModuleOp) -> dict[str, bytes]:
    """Name -> object code of each kernel of a module at the lowered stage."""
    kernels = {
        op.sym_name.data: ModuleOp([op.clone()])
        for op in module.ops
        if isinstance(op, func.FuncOp) and not _is_caller(op)
    }
    with shown_progress() as progress:
        return compile_modules(
            kernels, cache=kernel_cache(), progress=lambda name: progress(f"compiled {name}")
        )


def dump(module: ModuleOp, stage: str) -> dict[str, bytes]:
    """The IR of a stage as a file."""
    return {f"{stage}.mlir": f"{module!s}\n".encode()}


def _is_caller(function: func.FuncOp) -> bool:
    return any(isinstance(op, func.CallOp) for op in function.body.block.ops)
