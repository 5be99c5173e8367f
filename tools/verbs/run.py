"""nybble run: a compiled model, a function of an MLIR file or a PTX kernel, on given inputs."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import click

from nybble.backends.cpu.artifact import MANIFEST
from nybble.backends.gpu.sim.simulate import Launch
from nybble.dialects.errors import NybbleError
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.files import write_output
from nybble.tools.gpu_model import is_gpu_model, simulate_gpu_model
from nybble.tools.mlir_file import is_mlir
from nybble.tools.model_options import (
    activations_option,
    cpu_mode,
    isa_option,
    json_option,
    threads_option,
)
from nybble.tools.models import check_isa
from nybble.tools.run_file import FileRun, run_file
from nybble.tools.run_model import run_model
from nybble.tools.run_spgemm import AUTO, MODEL, SCHEDULES, SparseRun, run_spgemm
from nybble.tools.simulate_ptx import SUFFIX as PTX_SUFFIX
from nybble.tools.simulate_ptx import PtxRun, run_ptx
from nybble.tools.target import ChosenTarget, TargetType, compiles

EXIT_DISAGREES = 1


@click.command(name="run")
@click.argument("what")
@click.argument("right", required=False)
@click.option(
    "--target",
    type=TargetType(compiles),
    help="spgemm: multiply the matrices WHAT and RIGHT.",
)
@click.option("--schedule", type=click.Choice(SCHEDULES), help="Of target spgemm.  [default: auto]")
@click.option("--engine", help="Of target spgemm: a simulator's name.  [default: model]")
@click.option("--harts", type=click.IntRange(1, 64), help="Of target spgemm.")
@click.option("--plot", help="Of target spgemm: an SVG file for what the model's phases use.")
@click.option("--function", help="Function of an MLIR file; default: its only one.")
@click.option("--tokens", type=click.IntRange(1), default=1, show_default=True, help="Token rows.")
@click.option(
    "--position",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the first row of an MLIR function.",
)
@click.option("--ids", help="Token ids for a model, separated by commas; default: random ones.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random inputs."
)
@click.option("--sim", is_flag=True, help="Run a kernel of a .ptx file in the simulator.")
@click.option("--args", "arguments", help="Of a kernel, separated by spaces: f32:64x64 i8:64=1 64.")
@click.option("--grid", help="Blocks of a kernel, such as 4 or 4x2.  [default: 1]")
@click.option("--block", help="Threads of a block, such as 128 or 32x4.  [default: 1]")
@click.option("--shared", type=click.IntRange(0), help="Bytes of dynamic shared memory.")
@click.option("--report", is_flag=True, help="Show what a kernel did and what that costs.")
@click.option("--save", help="Folder for the buffers of a kernel, as .npy files.")
@activations_option
@isa_option
@threads_option
@json_option
@click.pass_obj
def command(
    session: Session,
    what: str,
    right: str | None,
    target: ChosenTarget | None,
    schedule: str | None,
    engine: str | None,
    harts: int | None,
    plot: str | None,
    function: str | None,
    tokens: int,
    position: int,
    ids: str | None,
    seed: int,
    sim: bool,
    arguments: str | None,
    grid: str | None,
    block: str | None,
    shared: int | None,
    report: bool,
    save: str | None,
    activations: str | None,
    isa: str | None,
    threads: int | None,
    json_file: str | None,
) -> int:
    """Run WHAT: a directory of `nybble compile`; a .mlir file at the operators stage (- is
    standard input), whose results are compared with the reference; with --sim, a model for a GPU or
    a kernel of a .ptx file in the simulator; or, with --target spgemm, a sparse matrix (.mtx,
    .npz), times RIGHT, on a simulator or the cycle model of the accelerator. Exits with 1 if
    results differ, or a kernel has findings."""
    sparse = {"schedule": schedule, "engine": engine, "harts": harts, "plot": plot}
    if target is not None and target.name == "spgemm" and right is not None:
        asked = SparseRun(what, right, target, schedule or AUTO, engine or MODEL, harts, plot)
        return _report(run_spgemm(asked), json_file)
    _refuse({"target": target, **sparse}, "what is no product of two matrices")
    if right is not None:
        raise UsageError(f"'{right[:60]}' after {what[:60]}", accepted="--target spgemm with it")
    kernel = {"args": arguments, "grid": grid, "block": block, "shared": shared, "save": save}
    host = {"ids": ids, "isa": isa, "activations": activations}
    if is_gpu_model(what):
        _refuse({**kernel, "isa": isa, "activations": activations}, "a model for a GPU")
        _refuse({"threads": threads, "function": function}, "a model for a GPU")
        if not sim:
            raise UsageError(f"{what} runs in the simulator", accepted="--sim")
        return _report(simulate_gpu_model(Path(what), ids, tokens, seed), json_file)
    if sim or Path(what).suffix == PTX_SUFFIX:
        _refuse({**host, "threads": threads}, "a PTX kernel")
        return _simulate(session, what, sim, PtxRun(
            function, tuple(shlex.split(arguments or "")),
            Launch(extent(grid), extent(block), shared or 0), seed, save,
        ), json_file, details=report)  # fmt: skip
    _refuse({**kernel, "report": report or None}, "what runs without --sim")
    if (Path(what) / MANIFEST).is_file():
        given = {"function": function, "isa": isa, "activations": activations}
        _refuse(given, "a compiled model")
        result = run_model(Path(what), ids, tokens, seed, threads)
    elif is_mlir(what):
        _refuse({"ids": ids}, "an MLIR file")
        check_isa(isa)
        mode = cpu_mode(activations) or "i8"
        run = FileRun(function, tokens, position, seed, threads or 1, isa, mode)
        result = run_file(what, run, session)
    else:
        raise NybbleError(f"cannot run {what}", accepted="a compiled directory or a .mlir file")
    return _report(result, json_file)


def _report(result: Mapping[str, object], json_file: str | None) -> int:
    """Print or write what came of it; the exit code."""
    if json_file is not None:
        write_output(json_file, (json.dumps(result) + "\n").encode())
    else:
        for name, value in result.items():
            click.echo(f"{name}: {value}")
    return 0 if result.get("agrees", True) else EXIT_DISAGREES


def _simulate(
    session: Session, what: str, sim: bool, run: PtxRun, json_file: str | None, *, details: bool
) -> int:
    """Run a kernel, say what came of it, and give the exit code."""
    if not sim:
        raise UsageError(f"{what} runs in the simulator", accepted="--sim")
    result = run_ptx(what, run, session)
    if json_file is not None:
        write_output(json_file, (json.dumps(result.as_json()) + "\n").encode())
    else:
        click.echo(result.text(details=details))
    return EXIT_DISAGREES if result.report.findings else 0


def extent(text: str | None) -> tuple[int, int, int]:
    """The extent that "4", "4x2" or "4x2x1" spells; raises UsageError."""
    sides = (text or "1").split("x")
    if len(sides) > 3 or not all(side.isdigit() for side in sides):
        raise UsageError(f"'{text}' is no extent", accepted="such as 4, 4x2 or 4x2x1")
    x, y, z = [*map(int, sides), 1, 1][:3]
    return x, y, z


def _refuse(options: Mapping[str, object], what: str) -> None:
    """Raise UsageError for an option that says nothing about what is run."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name} means nothing for {what}")
