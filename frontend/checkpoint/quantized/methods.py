"""The table of quantization methods: the quant_method of a config.json, and what decodes it."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from nybble.frontend.checkpoint.errors import CheckpointError, quoted
from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.quantized.awq import Awq
from nybble.frontend.checkpoint.quantized.bitnet import BitNet
from nybble.frontend.checkpoint.quantized.compressed import CompressedTensors
from nybble.frontend.checkpoint.quantized.gptq import Gptq
from nybble.frontend.checkpoint.quantized.layer import Decoded, Layer
from nybble.frontend.checkpoint.quantized.torchao import TorchAo
from nybble.frontend.checkpoint.safetensors_file import StoredTensor


class Method(Protocol):
    """How the quantized layers of a checkpoint are stored.

    parts: the names, within a layer, of the tensors of a quantized layer. defaults: what a
    configuration means by an entry that it leaves out.
    """

    parts: ClassVar[tuple[str, ...]]
    defaults: ClassVar[Mapping[str, Any]]

    @staticmethod
    def read(fields: Fields, metadata: Mapping[str, str]) -> "Method":
        """The method as a configuration's entries describe it; CheckpointError if unsupported.

        metadata: the texts in the safetensors files.
        """
        ...

    def decode(self, layer: Layer) -> Decoded | None:
        """The weight of one layer, None if it is not quantized.

        Raises CheckpointError for tensors that do not fit together.
        """
        ...


METHODS: Mapping[str, type[Method]] = MappingProxyType(
    {
        "awq": Awq,
        "bitnet": BitNet,
        "compressed-tensors": CompressedTensors,
        "gptq": Gptq,
        "torchao": TorchAo,
    }
)


def read_method(fields: Fields, metadata: Mapping[str, str]) -> Method:
    """The method that a quantization_config names in its `quant_method`."""
    method = METHODS[fields.choice("quant_method", tuple(METHODS))]
    return method.read(Fields(fields.path, fields.values, method.defaults), metadata)


def decode_layers(
    path: Path,
    method: Method,
    shapes: Mapping[str, tuple[int, ...]],
    stored: dict[str, StoredTensor],
) -> dict[str, Decoded]:
    """The quantized weights among `stored`, whose tensors are taken out of it: name -> weight.

    shapes: every parameter of the model, with its shape.
    """
    found: dict[str, Decoded] = {}
    for name, shape in shapes.items():
        layer = name.removesuffix(".weight")
        names = {part: f"{layer}.{part}" for part in method.parts}
        tensors = {part: stored[full] for part, full in names.items() if full in stored}
        if layer == name or len(shape) != 2 or not tensors:
            continue
        weight = method.decode(Layer(path, layer, (shape[0], shape[1]), tensors))
        if weight is None:
            continue
        for part in tensors:
            del stored[names[part]]
        if name in stored:
            both = f"both {quoted(name)} and {quoted(names[next(iter(tensors))])}"
            raise CheckpointError(path, f"holds {both}; one weight is needed")
        found[name] = weight
    return found
