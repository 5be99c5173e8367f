"""Writes down what is needed to repeat a fault of nybble, and reads it back to repeat it."""

import json
import shlex
import tempfile
import traceback
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nybble.dialects.errors import NybbleError, SourceLocation

_HEADER = "// nybble reproducer: "
_PACKAGES = ("nybble", "xdsl", "numpy", "xtc-mlir-python-bindings", "torch", "torch-mlir")


class ReproducerError(NybbleError):
    """A file that is not a reproducer."""


@dataclass(frozen=True)
class Reproducer:
    """One run: the program, its arguments, and the text it worked on.

    text: the MLIR that was read, or None where the arguments alone say it all.
    path: the file to write; None picks a fresh one in the directory for temporary files.
    """

    program: str
    arguments: tuple[str, ...]
    text: str | None = None
    path: Path | None = None

    def write(self, fault: BaseException) -> Path:
        """Write the file and give its path; raises OSError if it cannot be written."""
        record = {"program": self.program, "arguments": list(self.arguments)}
        trace = "".join(traceback.format_exception(fault)).splitlines()
        lines = [_HEADER + json.dumps(record), f"// versions: {_versions()}"]
        lines += [f"// {line}" for line in trace]
        path = self.path or _fresh_path(self.program)
        path.write_text("\n".join(lines) + "\n" + (self.text or ""), encoding="utf-8")
        return path

    def replay(self, path: Path) -> str:
        """The command that repeats the run written to `path`."""
        if self.text is None:
            return shlex.join([self.program, *self.arguments])
        return shlex.join([self.program, "--run-reproducer", str(path)])


def read_arguments(text: str, name: str) -> tuple[str, ...]:
    """The arguments in the first line of a reproducer; raises ReproducerError."""
    first = text.partition("\n")[0]
    record = _record(first.removeprefix(_HEADER)) if first.startswith(_HEADER) else None
    if record is None or not all(isinstance(argument, str) for argument in record):
        raise ReproducerError(
            "this file is not a reproducer",
            location=SourceLocation(name, 1, 1),
            accepted=f"a first line that starts with '{_HEADER.strip()}'",
        )
    return tuple(str(argument) for argument in record)


def _record(text: str) -> list[object] | None:
    try:
        return list(json.loads(text)["arguments"])
    except (ValueError, TypeError, KeyError):
        return None


def _versions() -> str:
    return ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _fresh_path(program: str) -> Path:
    with tempfile.NamedTemporaryFile(
        prefix=f"{program}-reproducer-", suffix=".mlir", delete=False
    ) as file:
        return Path(file.name)
