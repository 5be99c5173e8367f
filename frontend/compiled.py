"""What a compilation gives: something that runs, and its IR stage by stage."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.artifact import open_artifact
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.passes.stages import STAGES

STAGES_FOLDER = "stages"
"""The IR of each stage lies beside an artifact's files, to be read by people."""
REASONS_FILE = "explain.txt"


class Compiled(ABC):
    """Machine code for a model or a module, loaded and ready.

    stages: stage -> IR text; empty for an artifact that was saved without.
    """

    def __init__(self, notes: "Notes") -> None:
        self.stages = notes.stages
        self._notes = notes

    @abstractmethod
    def _write(self, directory: Path) -> None:
        """Write the artifact's own files, whole or not at all."""

    @abstractmethod
    def close(self) -> None:
        """End the worker threads; nothing can run afterwards."""

    def save(self, directory: str | Path) -> None:
        """Write an artifact that `Compiled.load` and `nybble run` read; one there is replaced.

        Raises NybbleError for a directory that cannot be written or is something else.
        """
        target = Path(directory)
        self._write(target)
        self._notes.write(target / STAGES_FOLDER)

    @staticmethod
    def load(directory: str | Path, threads: int | None = None) -> "Compiled":
        """What `save` or `nybble compile` wrote; threads: by default one for each processor.

        Needs neither torch nor the compiler. Raises NybbleError for a directory that is no
        artifact, is damaged, or is for another machine.
        """
        from nybble.frontend.compiled_model import CompiledModel
        from nybble.frontend.compiled_module import KIND, CompiledModule

        folder = Path(directory)
        artifact = open_artifact(folder)
        notes = Notes.read(folder / STAGES_FOLDER)
        if artifact.plan.config.extra.get("kind") == KIND:
            return CompiledModule.open(artifact, notes, threads)
        return CompiledModel.open(folder, notes, threads)

    def explain(self) -> str:
        """A line for each kernel: how it computes, on how many tokens, and why.

        Raises NybbleError if the artifact was saved without.
        """
        if not self._notes.reasons:
            raise NybbleError(
                "the artifact says nothing about its kernels", accepted="one of Compiled.save"
            )
        return self._notes.reasons


@dataclass(frozen=True)
class Notes:
    """What a compilation left for people: the IR of each stage, and the reasons of its choices."""

    stages: Mapping[str, str]
    reasons: str

    def write(self, folder: Path) -> None:
        """Write each stage as a file, and the reasons; raises NybbleError."""
        try:
            folder.mkdir(exist_ok=True)
            for name, text in self.stages.items():
                (folder / f"{name}.mlir").write_text(text)
            (folder / REASONS_FILE).write_text(self.reasons)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NybbleError(f"cannot write {folder}: {error.strerror}") from error

    @staticmethod
    def read(folder: Path) -> "Notes":
        """What `write` wrote; empty if there is nothing."""
        files = {stage.name: folder / f"{stage.name}.mlir" for stage in STAGES}
        stages = {name: path.read_text() for name, path in files.items() if path.is_file()}
        reasons = folder / REASONS_FILE
        return Notes(stages, reasons.read_text() if reasons.is_file() else "")


def kernel_lines(module: ModuleOp) -> Iterator[str]:
    """A line for each kernel of a module at the scheduled stage."""
    for function in [op for op in module.ops if isinstance(op, func.FuncOp)]:
        kernels = [op for op in function.walk() if isinstance(op, KernelOp)]
        for index, kernel in enumerate(kernels):
            name = f"{function.sym_name.data}.{index}.{kernel.kernel_name.data}"
            schedule = kernel.schedule
            assert schedule is not None, "the form of the stage was checked"
            tokens = schedule.option("tokens")
            yield f"{name}: {schedule.dataflow.data}, {tokens} tokens: {schedule.because.data}"
