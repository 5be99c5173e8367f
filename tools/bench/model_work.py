"""What a language model has to read and to multiply, from the tensors of its checkpoint."""

from dataclasses import dataclass
from math import prod

from nybble.dialects.lowbit import formats
from nybble.frontend.checkpoint import Checkpoint, TensorEntry
from nybble.tools.bench.roofs import Work

HEAD = "lm_head.weight"
_LAYERS = "model.layers."


@dataclass(frozen=True)
class ModelWork:
    """Bytes and weights of the matrices of all layers, and of the output head."""

    layer_bytes: int
    layer_weights: int
    head_bytes: int
    head_weights: int

    @property
    def bytes(self) -> int:
        """Of all matrices that a token is multiplied with."""
        return self.layer_bytes + self.head_bytes

    def prefill(self, tokens: int) -> Work:
        """A prompt: every layer for each token, the head for the last. Attention is left out."""
        return Work(self.bytes, 2.0 * (tokens * self.layer_weights + self.head_weights))

    def decode(self) -> Work:
        """One token; what it reads of the cache is left out."""
        return Work(self.bytes, 2.0 * (self.layer_weights + self.head_weights))


def model_work(checkpoint: Checkpoint) -> ModelWork:
    """Adds up the matrices of a checkpoint; norms and the embedding's one row do not count."""
    tensors = checkpoint.tensors
    layers = [
        one for name, one in tensors.items() if name.startswith(_LAYERS) and len(one.shape) == 2
    ]
    head = tensors[HEAD]
    return ModelWork(
        sum(_bytes(one) for one in layers),
        sum(prod(one.shape) for one in layers),
        _bytes(head),
        prod(head.shape),
    )


def _bytes(tensor: TensorEntry) -> int:
    rows, cols = tensor.shape
    form = formats.get(tensor.format)
    if form.is_streamed:
        return int(rows * cols * form.bits_per_weight / 8)
    return rows * form.row_bytes(cols)
