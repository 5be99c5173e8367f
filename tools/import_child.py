"""The import of a model in a process of its own, so that torch's memory ends with it.

Run as `python -m nybble.tools.import_child`: a JSON request on standard input, a JSON answer on
standard output; the model graph goes into the requested folder.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from nybble.dialects.errors import NybbleError
from nybble.frontend.checkpoint import Checkpoint, open_checkpoint
from nybble.frontend.graph import ModelGraph

NEEDED = ("torch", "torch_mlir", "transformers")


class ImportFailedError(NybbleError):
    """A model that could not be imported."""


def import_in_child(checkpoint: Checkpoint, context: int, kv: str) -> ModelGraph:
    """The model at stage `import`; errors of the child are raised here."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ImportFailedError(
            f"importing a model needs {', '.join(missing)}",
            accepted="pip install 'nybble[torch]', or a directory of `nybble compile`",
        )
    with tempfile.TemporaryDirectory(prefix="nybble-import-") as folder:
        request = {
            "path": str(checkpoint.path),
            "context": context,
            "kv": kv,
            "folder": folder,
            "parent": os.getpid(),
        }
        child = subprocess.run(
            [sys.executable, "-P", "-m", "nybble.tools.import_child"],
            input=json.dumps(request).encode(),
            capture_output=True,
            check=False,
        )
        _raise_for(child)
        return ModelGraph.load(Path(folder))


def _raise_for(child: subprocess.CompletedProcess[bytes]) -> None:
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
        message, accepted = answer["message"], answer["accepted"]
    except (ValueError, IndexError, KeyError, TypeError):
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"the import ended with {child.returncode}: {last}") from None
    if message:
        raise ImportFailedError(message, accepted=accepted)


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    answer: dict[str, str | None] = {"message": None, "accepted": None}
    try:
        from nybble.frontend.pytorch.import_model import import_model

        checkpoint = open_checkpoint(request["path"])
        graph = import_model(checkpoint, request["context"], request["kv"])
        graph.save(Path(request["folder"]))
    except NybbleError as error:
        answer = {"message": error.message, "accepted": error.accepted}
    if os.getppid() != request["parent"]:  # it was killed, and nobody else will clean up
        shutil.rmtree(request["folder"], ignore_errors=True)
        return
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
