"""The C parts of the model, compiled for this machine when something first asks for them."""

import subprocess
from functools import cache
from importlib.resources import files
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from nybble.backends.llvm.toolchain import last_words
from nybble.backends.spgemm.engines.outcome import EngineError

_FOLDERS: list[TemporaryDirectory[str]] = []
"""Kept until this process ends."""


def compiler() -> str:
    """The path of a C compiler; raises EngineError where there is none."""
    found = which("cc") or which("gcc")
    if found is None:
        raise EngineError("no C compiler is installed", accepted="apt-get install gcc")
    return found


@cache
def library(name: str) -> Path:
    """The shared library of `name`.c beside this file; raises EngineError."""
    folder = TemporaryDirectory(prefix="nybble-model-")
    _FOLDERS.append(folder)
    source, made = Path(folder.name) / f"{name}.c", Path(folder.name) / f"{name}.so"
    source.write_text(files("nybble.backends.spgemm.model").joinpath(f"{name}.c").read_text())
    command = [compiler(), "-O2", "-shared", "-fPIC", str(source), "-o", str(made), "-lm"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise EngineError(f"cc failed: {last_words(done.stderr, done.returncode)}")
    return made
