"""From what a user calls a model to a compiled artifact: alias, GGUF file, folder or artifact."""

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import click
import platformdirs
from filelock import FileLock
from rich.console import Console

from nybble.backends.cache import Cache
from nybble.backends.cpu.artifact import MANIFEST, ArtifactError, open_artifact
from nybble.backends.cpu.machine import native
from nybble.backends.cpu.toolchain import versions
from nybble.frontend.checkpoint import open_checkpoint
from nybble.frontend.compile_model import CompileOptions, ModelCompiler
from nybble.tools.import_child import import_in_child

CONTEXT_STEP = 128
"""Caches hold a multiple of this many positions."""
Progress = Callable[[str], None]


def cache_root() -> Path:
    """The folder of everything that is kept between runs; NYBBLE_CACHE names another one."""
    chosen = os.environ.get("NYBBLE_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("nybble"))


def kernel_cache() -> Cache:
    """Object code compiled before."""
    return Cache(cache_root() / "kernels")


def models_folder() -> Path:
    """Where models that `generate` and others compiled on the way are kept."""
    return cache_root() / "models"


@contextmanager
def shown_progress() -> Generator[Progress]:
    """A line on the error stream that says what is being done; nothing where it is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _message: None
        return
    with console.status("starting") as status:
        yield lambda message: status.update(message)


@dataclass(frozen=True)
class ModelChoice:
    """A model and how to compile it, as the options of a command gave them."""

    model: str
    options: CompileOptions

    def artifact(self) -> Path:
        """The artifact of the model, compiled now if it was not before."""
        given = Path(self.model)
        if (given / MANIFEST).is_file():
            return given
        checkpoint = open_checkpoint(self.model)
        folder = models_folder() / self._key(checkpoint.path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_usable(folder):
                self.compile_to(folder)
        return folder

    def compile_to(self, folder: Path) -> None:
        """Compile the model into a folder."""
        checkpoint = open_checkpoint(self.model)
        with shown_progress() as progress:
            compiler = ModelCompiler(
                checkpoint, self.options, import_in_child, kernel_cache(), progress
            )
            compiler.write(folder)

    def _key(self, path: Path) -> str:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        parts = [facts, asdict(self.options), str(native()), versions(), version("nybble")]
        return sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def _is_usable(folder: Path) -> bool:
    try:
        open_artifact(folder)
    except ArtifactError:
        return False
    return True


def model_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that may have to compile a model."""
    options = (
        click.option(
            "--activations",
            type=click.Choice(["i8", "f32"]),
            default="i8",
            show_default=True,
            help="8-bit integers per group, or exact.",
        ),
        click.option(
            "--kv", type=click.Choice(["f16", "f32"]), help="Type of the key-value cache."
        ),
        click.option(
            "--context",
            type=click.IntRange(2),
            default=2048,
            show_default=True,
            help="Tokens that prompt and answer may have together.",
        ),
        click.option("--isa", help="Instruction-set level; default: this machine's."),
        click.option(
            "--threads",
            type=click.IntRange(1, 64),
            help="Threads to use; default: one for each processor.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def choose(model: str, activations: str, kv: str | None, context: int, isa: str | None) -> ModelChoice:
    """The choice that the options of `model_options` make."""
    threads = max(os.cpu_count() or 1, 2)
    rounded = -(-context // CONTEXT_STEP) * CONTEXT_STEP
    options = CompileOptions(activations, kv, rounded, threads=threads, isa=isa)
    return ModelChoice(model, options)
