"""What a peer offers to a measurement. Everything it does runs on a thread of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.loading import Registry
from nybble.tools.bench.data import Sample
from nybble.tools.bench.rounds import Rotation
from nybble.tools.bench.tuning import Choices, Setting

Note = Callable[[str], None]
"""Told what cannot take part, and why."""


class KernelRunner(Protocol):
    """One way to compute a product, set up."""

    def seconds(self) -> float:
        """Runs all products of its rotation; seconds for one of them."""
        ...

    def result(self) -> NDArray[np.float32]:
        """What the last product gave: f32 [n, rows]."""
        ...

    def close(self) -> None:
        """Gives memory and threads back."""
        ...


class ModelRunner(Protocol):
    """A text on a model; positions count from 0."""

    def prefill(self, ids: Sequence[int]) -> float:
        """Forgets the text and feeds `ids` as one prompt, logits of the last included; seconds."""
        ...

    def decode(self, ids: Sequence[int], start: int) -> float:
        """Forgets what follows position `start`, feeds `ids` one by one with logits; seconds."""
        ...

    def second_half(self, window: list[int]) -> NDArray[np.float32]:
        """Logits of the window's second half, its last token left out: f32 [n / 2 - 1, vocab]."""
        ...

    def close(self) -> None:
        """Gives memory and threads back."""
        ...


class TunableModel(Protocol):
    """A model of a peer, with settings that make the peer faster or slower."""

    def choices(self, prompt: bool) -> Choices:
        """The settings that matter to a prompt, or to decoding; its own defaults come first."""
        ...

    def runner(self, threads: int, context: int, setting: Setting) -> ModelRunner:
        """The model under one setting. Raises UnavailableError."""
        ...

    def close(self) -> None:
        """Gives the weights back."""
        ...


class Peer(Protocol):
    """Another system. Its methods raise UnavailableError where it cannot take part at all."""

    def kernels(
        self, sample: Sample, threads: int, rotation: Rotation, note: Note
    ) -> dict[str, KernelRunner]:
        """Variant -> runner, for each of the peer's ways to compute the sample's product."""
        ...

    def model(self, path: Path, note: Note) -> TunableModel:
        """The model in a GGUF file."""
        ...


PEERS = {
    "int_dot": "nybble.tools.bench.peers.int_dot:IntDot",
    "llama.cpp": "nybble.tools.bench.peers.llama:LlamaCpp",
    "onnxruntime": "nybble.tools.bench.peers.onnxruntime:OnnxRuntime",
    "openvino": "nybble.tools.bench.peers.openvino:OpenVino",
    "torch": "nybble.tools.bench.peers.torch:Torch",
}


def _is_peer(found: object) -> TypeGuard[type[Peer]]:
    return isinstance(found, type) and hasattr(found, "kernels") and hasattr(found, "model")


REGISTRY: Registry[type[Peer]] = Registry("peer", PEERS, _is_peer)
