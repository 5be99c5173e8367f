"""Compiling an MLIR file of operators, without a model around it."""

import json
from pathlib import Path

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.archive import pack
from nybble.backends.cpu.codegen import compile_modules
from nybble.backends.cpu.machine import native
from nybble.backends.cpu.toolchain import versions
from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.screening import decode
from nybble.frontend.compile_model import CompileOptions
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import STAGES, find_stage, stages_between
from nybble.tools.files import read_input, write_output
from nybble.tools.models import kernel_cache

FIRST = "operators"
"""The stage that a hand-written file is at unless told otherwise."""


def read_module(path: Path) -> ModuleOp:
    """The verified module of a file; raises a located error."""
    text = decode(read_input(str(path)), str(path))
    return parse_module(make_context(), text, str(path))


def lower_file(
    path: Path, options: CompileOptions, start: str | None, stop: str | None
) -> tuple[ModuleOp, str]:
    """The module of a file taken from stage `start` to stage `stop`, and the latter's name."""
    module = read_module(path)
    first, last = start or FIRST, stop or STAGES[-1].name
    find_stage(first).form.check(module, first)
    context = make_context()
    for stage in stages_between(first, last) if first != last else ():
        run_passes(context, module, configure(build_pipeline(stage.passes), options.pass_options()))
        stage.form.check(module, stage.name)
    return module, last


def compile_file(
    path: Path, output: Path, options: CompileOptions, start: str | None, stop: str | None
) -> None:
    """Write a directory with the IR of the last stage and, if that is `lowered`, object code."""
    module, last = lower_file(path, options, start, stop)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NybbleError(f"cannot write {output}: {error.strerror}") from error
    write_output(str(output / f"{last}.mlir"), f"{module}\n".encode())
    if last != STAGES[-1].name:
        return
    kernels = {
        op.sym_name.data: ModuleOp([op.clone()])
        for op in module.ops
        if isinstance(op, func.FuncOp) and not _is_caller(op)
    }
    code = compile_modules(kernels, cache=kernel_cache())
    write_output(str(output / "kernels.a"), pack(list(code.values())))
    facts = {"target": str(native()), "compiler": versions(), "kernels": list(kernels)}
    write_output(str(output / "kernels.json"), (json.dumps(facts, indent=1) + "\n").encode())


def _is_caller(function: func.FuncOp) -> bool:
    return any(isinstance(op, func.CallOp) for op in function.body.block.ops)
