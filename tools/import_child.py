"""The import of a model in a process of its own, so that torch's memory ends with it.

Run as `python -m nybble.tools.import_child`: a JSON request on standard input, a JSON answer on
standard output; the model graph is in the folder that the answer names, which is then the parent's.
The child makes it, so that whenever the parent is killed there is somebody who removes it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from nybble.dialects.errors import NybbleError
from nybble.frontend.checkpoint import Checkpoint, open_checkpoint
from nybble.frontend.graph import ModelGraph
from nybble.frontend.requantize import requantized
from nybble.frontend.weight_choice import WeightChoice

NEEDED = ("torch", "torch_mlir", "transformers")


class ImportFailedError(NybbleError):
    """A model that could not be imported."""


def import_in_child(
    checkpoint: Checkpoint, context: int, kv: str, weights: WeightChoice
) -> ModelGraph:
    """The model at stage `import`; errors of the child are raised here.

    weights: what was done to the checkpoint after it was opened.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ImportFailedError(
            f"importing a model needs {', '.join(missing)}",
            accepted="pip install 'nybble[torch]', or a directory of `nybble compile`",
        )
    request = {
        "path": str(checkpoint.path),
        "context": context,
        "kv": kv,
        "weights": asdict(weights),
    }
    folder = Path(_ask(request))
    try:
        return ModelGraph.load(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ask(request: Mapping[str, object]) -> str:
    """Have a child do a request. Its standard input stays open until it is done: see `_watch`."""
    command = [sys.executable, "-P", "-m", "nybble.tools.import_child"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        answer = child.stdout.read().splitlines()[-1:]
        child.wait()
        log.seek(0)
        return _folder_of(answer, log.read(), child.returncode)


def _folder_of(answer: list[bytes], log: bytes, code: int) -> str:
    try:
        found = json.loads(answer[0])
        message, accepted, folder = found["message"], found["accepted"], found["folder"]
    except (ValueError, IndexError, KeyError, TypeError):
        last = log.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"the import ended with {code}: {last}") from None
    if message:
        raise ImportFailedError(message, accepted=accepted)
    return folder


def _watch(folder: str) -> None:
    """Wait for the end of standard input, which is that of the parent; then clean up and leave."""
    sys.stdin.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main() -> None:
    """Answer the one request on standard input."""
    line = sys.stdin.readline()
    if not line:
        return  # the parent is gone
    request, folder = json.loads(line), tempfile.mkdtemp(prefix="nybble-import-")
    threading.Thread(target=_watch, args=(folder,), daemon=True).start()
    answer: dict[str, str | None] = {"message": None, "accepted": None, "folder": folder}
    try:
        from nybble.frontend.pytorch.import_model import import_model

        weights = WeightChoice(**request["weights"])
        checkpoint = requantized(open_checkpoint(request["path"]), weights)
        graph = import_model(checkpoint, request["context"], request["kv"])
        graph.save(Path(folder))
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, NybbleError):
            raise
        answer = {"message": error.message, "accepted": error.accepted, "folder": None}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # at once: the watching thread would hold the interpreter's end up


if __name__ == "__main__":
    main()
