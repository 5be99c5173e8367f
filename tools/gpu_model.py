"""Language models compiled for a GPU: a folder of PTX, launches and weights; its simulation."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from nybble.backends.gpu.dataflows import MODES
from nybble.backends.gpu.model.plan import GpuPlan, from_json
from nybble.backends.gpu.model.simulated import SimulatedModel
from nybble.backends.gpu.products import Activations
from nybble.backends.llvm.toolchain import versions
from nybble.backends.llvm.workers import close_idle
from nybble.dialects.errors import NybbleError
from nybble.frontend.gpu_model import compile_gpu_model
from nybble.frontend.weight_choice import AS_STORED
from nybble.tools.diagnostics import UsageError
from nybble.tools.folder import check_folder, write_folder
from nybble.tools.models import choose, shown_progress
from nybble.tools.run_model import parse_ids, random_ids
from nybble.tools.target import ChosenTarget, CompileRequest

GPU_MODEL = "gpu_model.json"
"""The file that tells a folder of ours: kernels, buffers and launches."""
WEIGHTS = "weights.safetensors"
LIKELIEST = 5


def write_gpu_model(request: CompileRequest) -> None:
    """Compile a model into a directory."""
    request.refuse("weights", "context", "attention", "activations", "kv")
    if request.start or request.stop:
        raise UsageError("only an MLIR file can start or end at a stage", accepted="FILE.mlir")
    folder, given = request.folder(), request.given
    mode = gpu_mode(request.target, given["activations"])
    check_folder(folder, GPU_MODEL)
    choice = choose(
        request.model, "f32", given["kv"], given["context"], None,
        weights=given["weights"] or AS_STORED, attention=given["attention"] or "",
    )  # fmt: skip
    choice.say_notes()
    try:
        with shown_progress() as progress:
            model = compile_gpu_model(choice.compiler(progress), request.target.level, mode)
            progress("packing weights")
            weights = save(dict(model.weights()))
    finally:
        close_idle()
    described = {"target": str(request.target), "compiler": versions(), **model.plan.to_json()}
    files = {f"{name}.ptx": image.ptx.encode() for name, image in model.plan.images.items()}
    files |= choice.tokenizer().to_files()
    files[GPU_MODEL] = (json.dumps(described, indent=1) + "\n").encode()
    write_folder(folder, files | {WEIGHTS: weights}, GPU_MODEL)


def gpu_mode(target: ChosenTarget, given: str | None) -> Activations:
    """The mode that `--activations` asks for, f16 without; UsageError for one without a kernel."""
    for mode in MODES:
        if mode == (given or MODES[0]):
            return mode
    accepted = f"{', '.join(MODES)}; without, {MODES[0]}"
    raise UsageError(f"--activations {given} with target {target}", accepted=accepted)


def is_gpu_model(folder: str) -> bool:
    """Whether a folder is one that `write_gpu_model` wrote."""
    return (Path(folder) / GPU_MODEL).is_file()


def load_gpu_model(folder: Path) -> tuple[GpuPlan, Mapping[str, np.ndarray]]:
    """The plan and the weights of a folder; raises NybbleError for what cannot be read."""
    try:
        found = json.loads((folder / GPU_MODEL).read_text())
        ptx = {name: (folder / f"{name}.ptx").read_text() for name in found["kernels"]}
        return from_json(found, ptx), load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise NybbleError(
            f"{folder} is no whole model for a GPU: {error}", accepted="nybble compile again"
        ) from None


def simulate_gpu_model(folder: Path, ids: str | None, tokens: int, seed: int) -> dict[str, object]:
    """Feed tokens to a model in the simulator and report the likeliest next ones.

    ids: numbers separated by commas, or None for `tokens` random ones.
    """
    model = SimulatedModel(*load_gpu_model(folder))
    vocabulary = int(model.plan.facts["vocabulary"])
    chosen = random_ids(vocabulary, tokens, seed) if ids is None else parse_ids(ids)
    wrong = next((one for one in chosen if not 0 <= one < vocabulary), None)
    if wrong is not None:
        raise NybbleError(f"token id {wrong}", accepted=f"0 to {vocabulary - 1}")
    logits = model.feed(*chosen)
    best = np.argsort(-logits, kind="stable")[:LIKELIEST]
    return {
        "tokens": len(chosen), "launches": len(model.plan.launches), "next": model.next_token,
        "likeliest": [[int(token), float(logits[token])] for token in best],
    }  # fmt: skip
