"""`nybble compile` for the CPU: models and MLIR files."""

from dataclasses import replace
from pathlib import Path

from nybble.backends.cpu.artifact import MANIFEST
from nybble.frontend.weight_choice import AS_STORED
from nybble.tools.diagnostics import UsageError
from nybble.tools.folder import check_folder
from nybble.tools.kernels_file import compile_file
from nybble.tools.mlir_file import STAGE_NAMES, SUFFIX, is_mlir
from nybble.tools.models import ModelChoice, choose
from nybble.tools.target import CompileRequest
from nybble.tools.tuning import with_schedules

TAKEN = (
    "dump-stages", "schedules", "activations", "kv", "attention", "context", "isa", "threads",
    "weights",
)  # fmt: skip
"""The options of `nybble compile` that this target takes."""

TAKES = (
    "dump-stages", "schedules", "activations", "kv", "attention", "context", "isa", "threads",
    "weights",
)  # fmt: skip
"""Options of `nybble compile`."""


def compile_for_cpu(request: CompileRequest) -> None:
    """Write the directory of a model or a file."""
    request.refuse(*TAKEN)
    given, output = request.given, request.folder()
    if request.json_file is not None:
        raise UsageError("--json with target cpu", accepted="the manifest in the directory")
    request.refuse(*TAKES)
    choice = choose(
        request.model, given["activations"], given["kv"], given["context"], given["isa"],
        given["threads"], given["weights"] or AS_STORED, given["attention"] or "",
    )  # fmt: skip
    options = with_schedules(choice.options, given["schedules"])
    options = replace(options, dump=given["dump-stages"])
    if is_mlir(request.model):
        compile_file(request.model, output, options, request.start, request.stop, request.session)
    elif request.start or request.stop:
        raise UsageError(
            "only an MLIR file can start or end at a stage",
            accepted="FILE.mlir; --dump-stages DIR writes every stage of a model",
        )
    else:
        compile_model(replace(choice, options=options), output)


def compile_model(choice: ModelChoice, output: Path) -> None:
    """Write the artifact of a model; what is wrong with the folders is said before the work."""
    check_folder(output, MANIFEST)
    if choice.options.dump is not None:
        check_folder(choice.options.dump, f"{STAGE_NAMES[0]}{SUFFIX}")
    choice.say_notes()
    choice.compile_to(output)
