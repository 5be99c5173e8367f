"""A model as the frontend hands it on: functions, how to bind their arguments, constants."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context

TEXT_FILE = "import.mlir"
GRAPH_FILE = "graph.json"
CONSTANTS_FILE = "constants.npz"
LAYER = "{layer}"


class Role(StrEnum):
    """What a function's argument stands for."""

    INPUT = "input"  # token ids or hidden states
    POSITION = "position"  # absolute position of the first token
    CONSTANT = "constant"  # a table of ModelGraph.constants
    KEYS = "keys"  # key cache of the layer
    VALUES = "values"  # value cache of the layer
    STATE = "state"  # what else layers keep of the text, see `sparse_attn.retain`
    WEIGHT = "weight"  # a parameter of the checkpoint


@dataclass(frozen=True)
class Argument:
    """One argument of a function and what to bind it to.

    source: for a constant its key in `ModelGraph.constants`; for a weight the name of its tensor
    in the checkpoint, with `{layer}` where the number of the layer goes; otherwise empty. shared:
    layers in a row, counted from the first of the model, that have a state in common.
    """

    name: str
    role: Role
    source: str = ""
    shared: int = 1

    def state(self, layer: int) -> str:
        """The name of the buffer that holds a state of a layer."""
        return f"{self.name}.{layer // self.shared}"

    def tensor(self, layer: int | None = None) -> str:
        """The name of the checkpoint's tensor for a layer (None outside of layers)."""
        return self.source if layer is None else self.source.replace(LAYER, str(layer))


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a decoder-only model.

    kv_dtype: format of the key-value caches, see `sparse_attn.kv`; each is [kv_heads, context,
    head_dim]. An import makes "f32" or "f16" of them.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    kv_dtype: str


@dataclass(frozen=True)
class ModelGraph:
    """A model at the `import` stage and the description that its later stages keep.

    text: generic form of a module of the torch dialect, one function per distinct part.
    functions: function name -> its arguments, in the order of the function's.
    embed, layers, head: the function to call for each step of a forward pass. An embedding
    returns hidden states, a layer (hidden states, keys, values), the head logits.
    constants: rotary tables, f32 [context, head_dim / 2].
    """

    architecture: str
    dimensions: Dimensions
    text: str
    functions: Mapping[str, tuple[Argument, ...]]
    embed: str
    layers: tuple[str, ...]
    head: str
    constants: Mapping[str, npt.NDArray[np.float32]]

    def module(self) -> ModuleOp:
        """The text parsed, with the torch dialect's ops left unregistered."""
        return parse_module(make_context(allow_unregistered=True), self.text, TEXT_FILE)

    def save(self, folder: Path) -> None:
        """Write the graph into an existing folder: `import.mlir`, `graph.json`, `constants.npz`."""
        (folder / TEXT_FILE).write_text(self.text)
        np.savez(folder / CONSTANTS_FILE, **dict(self.constants))  # pyright: ignore[reportArgumentType]
        description = {
            "architecture": self.architecture,
            "dimensions": asdict(self.dimensions),
            "functions": {
                name: [asdict(argument) for argument in arguments]
                for name, arguments in self.functions.items()
            },
            "embed": self.embed,
            "layers": self.layers,
            "head": self.head,
        }
        (folder / GRAPH_FILE).write_text(json.dumps(description, indent=1))

    @staticmethod
    def load(folder: Path) -> "ModelGraph":
        """Read what `save` wrote; raises NybbleError for files that it did not write."""
        try:
            return _load(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NybbleError(f"no saved model graph in '{folder}': {error}") from error


def _argument(name: str, role: str, source: str, shared: int) -> Argument:
    return Argument(name, Role(role), source, shared)


def _load(folder: Path) -> ModelGraph:
    found: dict[str, Any] = json.loads((folder / GRAPH_FILE).read_text())
    functions = {
        name: tuple(_argument(**one) for one in arguments)
        for name, arguments in found["functions"].items()
    }
    with np.load(folder / CONSTANTS_FILE) as archive:
        constants = {name: archive[name] for name in archive.files}
    return ModelGraph(
        architecture=found["architecture"],
        dimensions=Dimensions(**found["dimensions"]),
        text=(folder / TEXT_FILE).read_text(),
        functions=functions,
        embed=found["embed"],
        layers=tuple(found["layers"]),
        head=found["head"],
        constants=constants,
    )
