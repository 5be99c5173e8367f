"""llama.cpp as a peer: its products under every buffer type, its models under every setting."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nybble.frontend.checkpoint import open_checkpoint
from nybble.tools.bench.data import Sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.own_thread import OwnThread
from nybble.tools.bench.peers import trial
from nybble.tools.bench.peers.api import KernelRunner, ModelRunner, Note, TunableModel
from nybble.tools.bench.peers.ggml_matmul import PLAIN, GgmlMatmul, Product, buffer_kinds, holds
from nybble.tools.bench.peers.libraries import extra_buffer_types
from nybble.tools.bench.peers.llama_model import DEFAULT, LlamaContext, LlamaModel, LlamaSetting
from nybble.tools.bench.rounds import Rotation
from nybble.tools.bench.tuning import Choices, Setting

FLASH = (True, False)
BATCHES = (512, 128)


class LlamaCpp:
    """The peer "llama.cpp"; see nybble.tools.bench.peers.api."""

    def __init__(self) -> None:
        self._thread = OwnThread("llama.cpp")

    def kernels(
        self, sample: Sample, threads: int, rotation: Rotation, note: Note
    ) -> dict[str, KernelRunner]:
        """Buffer type -> product, for all that work here."""
        product = Product(
            sample.spec, sample.raw, sample.x, threads, rotation.copies, rotation.repeats
        )
        found: dict[str, KernelRunner] = {}
        for buffer in _working(buffer_kinds(), note):
            try:
                kernel = self._thread.run(GgmlMatmul, product, buffer)
            except UnavailableError as reason:
                note(reason.message)
                continue
            found[buffer] = _Kernel(kernel, self._thread)
        return found

    def model(self, path: Path, note: Note) -> TunableModel:
        """The file under llama.cpp."""
        return _Model(path, self._thread, note)


class _Kernel:
    def __init__(self, kernel: GgmlMatmul, thread: OwnThread) -> None:
        self._kernel, self._thread = kernel, thread

    def seconds(self) -> float:
        return self._thread.run(self._kernel.seconds)

    def result(self) -> NDArray[np.float32]:
        return self._thread.run(self._kernel.result)

    def close(self) -> None:
        self._thread.run(self._kernel.close)


class _Model:
    def __init__(self, path: Path, thread: OwnThread, note: Note) -> None:
        self._path, self._thread = path, thread
        self._loaded: dict[str, LlamaModel] = {}
        self._buffers = thread.run(_model_buffers, path, note)

    def choices(self, prompt: bool) -> Choices:
        return {
            "buffers": self._buffers,
            "flash": FLASH,
            "batch": BATCHES if prompt else BATCHES[:1],
        }

    def runner(self, threads: int, context: int, setting: Setting) -> ModelRunner:
        buffers, flash, batch = (setting[name] for name in ("buffers", "flash", "batch"))
        chosen = LlamaSetting(str(buffers), bool(flash), int(str(batch)))
        return self._thread.run(self._make, threads, context, chosen)

    def close(self) -> None:
        for model in self._loaded.values():
            self._thread.run(model.close)

    def _make(self, threads: int, context: int, setting: LlamaSetting) -> ModelRunner:
        model = self._loaded.get(setting.buffers)
        if model is None:
            model = self._loaded[setting.buffers] = LlamaModel(self._path, setting.buffers)
        return _Runner(LlamaContext(model, context, threads, setting), self._thread)


class _Runner:
    def __init__(self, context: LlamaContext, thread: OwnThread) -> None:
        self._context, self._thread = context, thread

    def prefill(self, ids: Sequence[int]) -> float:
        return self._thread.run(self._context.prefill, ids)

    def decode(self, ids: Sequence[int], start: int) -> float:
        return self._thread.run(self._context.decode, ids, start)

    def second_half(self, window: list[int]) -> NDArray[np.float32]:
        return self._thread.run(self._context.second_half, window)

    def close(self) -> None:
        self._thread.run(self._context.close)


def _working(buffers: Sequence[str], note: Note) -> list[str]:
    """The buffer types that survive a trial; the others are noted."""
    faults = {buffer: trial.fault(buffer) for buffer in buffers}
    for reason in faults.values():
        if reason:
            note(reason)
    return [buffer for buffer, reason in faults.items() if not reason]


def _model_buffers(path: Path, note: Note) -> tuple[str, ...]:
    """Choices of buffers for a whole model, the library's own first if that works.

    The library takes the first type that can hold a tensor, so one broken type spoils its choice.
    """
    extra = list(extra_buffer_types())
    working = _working(extra, note)
    own = [DEFAULT] if extra and working == extra else []
    others = [name for name in working if not own or name != extra[0]]
    matrices = _layer_matrices(path)
    fitting = [name for name in others if all(holds(name, *matrix) for matrix in matrices)]
    return (*own, *fitting, PLAIN)


def _layer_matrices(path: Path) -> set[tuple[str, int, int]]:
    """(type, rows, cols) of the matrices in a model's layers."""
    tensors = open_checkpoint(path).tensors.items()
    return {
        (one.format, *one.shape)
        for name, one in tensors
        if ".layers." in name and len(one.shape) == 2
    }
