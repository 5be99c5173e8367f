"""Reading checkpoints: GGUF files and Hugging Face folders, behind one interface."""

import os.path
from pathlib import Path

from nybble.frontend.checkpoint.aliases import ALIASES, packaged_file
from nybble.frontend.checkpoint.errors import CheckpointError
from nybble.frontend.checkpoint.folder_checkpoint import open_folder
from nybble.frontend.checkpoint.gguf_checkpoint import open_gguf
from nybble.frontend.checkpoint.model import Checkpoint, TensorEntry


def open_checkpoint(path_or_alias: str | Path) -> Checkpoint:
    """Open a GGUF file, a Hugging Face folder, or an alias such as "smollm2".

    Reads headers only; tensor bytes are mapped and read when asked for. CheckpointError says what
    is wrong, where, and what would be accepted.
    """
    path = Path(path_or_alias)
    if str(path_or_alias) in ALIASES and not path.exists():
        path = packaged_file(str(path_or_alias))
    # Unlike Path.is_dir, this takes a name that the system refuses for one that is not there.
    return open_folder(path) if os.path.isdir(path) else open_gguf(path)


__all__ = ["Checkpoint", "CheckpointError", "TensorEntry", "open_checkpoint"]
