"""Checkpoints of compressed-tensors, as llm-compressor writes them.

The configuration has groups of layers, each with a list of its layers' names, and a list of layers
to leave out. How activations and the key-value cache are quantized is not taken over: nybble's own
options say it.
Source: `QuantizationConfig` of compressed-tensors 0.20.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from nybble.frontend.checkpoint.errors import CheckpointError, quoted
from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.quantized.compressed_scheme import ACTIVATIONS, Scheme
from nybble.frontend.checkpoint.quantized.layer import Decoded, Layer
from nybble.frontend.checkpoint.quantized.targets import Targets

MAX_SCHEMES = 256


@dataclass(frozen=True)
class CompressedTensors:
    """The groups of layers, and those that none of them means."""

    schemes: tuple[Scheme, ...]
    ignored: Targets
    parts: ClassVar[tuple[str, ...]] = (
        "weight",
        "weight_packed",
        "weight_scale",
        "weight_zero_point",
        "weight_global_scale",
        "weight_shape",
        "weight_g_idx",
        *ACTIVATIONS,
    )
    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"quantization_status": "compressed"})

    @staticmethod
    def read(fields: Fields, metadata: Mapping[str, str]) -> "CompressedTensors":
        """The configuration in `fields`; CheckpointError names what is not supported."""
        fields.choice("quantization_status", ("compressed",))
        for key in ("kv_cache_scheme", "transform_config"):
            if fields.get(key):
                raise fields.fail(key, "absent (not supported)")
        fields.inner("sparsity_config", {"format": "dense"}).choice("format", ("dense",))
        groups = fields.inner("config_groups")
        if not 1 <= len(groups.values) <= MAX_SCHEMES:
            raise fields.fail("config_groups", f"1 to {MAX_SCHEMES} groups")
        default = {"format": fields.get("format")}
        found = [Scheme.read(groups.inner(name, default)) for name in groups.values]
        schemes = tuple(scheme for scheme in found if scheme is not None)
        return CompressedTensors(schemes, Targets.read(fields, "ignore"))

    def decode(self, layer: Layer) -> Decoded | None:
        """The weight of a layer, None if it is stored as plain floats.

        Raises CheckpointError for tensors that do not fit together, or that are quantized though
        the configuration leaves the layer out.
        """
        if layer.tensors.keys() <= {"weight", *ACTIVATIONS}:
            return None
        return self._scheme(layer).decode(layer)

    def _scheme(self, layer: Layer) -> Scheme:
        """The group that means the layer most closely, the first of them among equals."""
        meant = [
            (rank, s) for s in self.schemes if (rank := s.targets.rank(layer.name)) is not None
        ]
        if not meant or self.ignored.rank(layer.name) is not None:
            state = "leaves out" if meant else "has no group for"
            raise CheckpointError(
                layer.path,
                f"holds {quoted(layer.name)} quantized; the configuration {state} this layer",
            )
        return min(meant, key=lambda item: item[0])[1]
