"""From what a user calls a model to a compiled artifact: alias, GGUF file, folder or artifact."""

import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import click
import platformdirs
from filelock import FileLock
from rich.console import Console

import nybble
from nybble.backends.cache import Cache
from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.artifact import MANIFEST, ArtifactError, open_artifact
from nybble.backends.cpu.machine import cpu_flags, native
from nybble.backends.cpu.weights import layout_of
from nybble.backends.llvm.toolchain import versions
from nybble.backends.llvm.workers import close_idle
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.frontend.checkpoint import Checkpoint, open_checkpoint
from nybble.frontend.compile_model import CompileOptions, ModelCompiler
from nybble.frontend.requantize import note, requantized
from nybble.frontend.scorers import with_scorers
from nybble.frontend.text import Tokenizer, read_tokenizer, tokenizer_of
from nybble.frontend.weight_choice import AS_STORED, WeightChoice
from nybble.tools.import_child import import_in_child
from nybble.tools.model_options import cpu_mode

CACHE_VARIABLE = "NYBBLE_CACHE"
DEFAULT_CONTEXT = 2048
"""Tokens that a text may have unless told otherwise, or as many as the model can take."""

Progress = Callable[[str], None]


def cache_root() -> Path:
    """The folder of everything that is kept between runs; NYBBLE_CACHE names another one."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("nybble"))


def kernel_cache() -> Cache:
    """Object code compiled before."""
    return Cache(_made(cache_root()) / "kernels")


def circuit_cache() -> Cache:
    """Simulators of circuits, and what Yosys counted in them."""
    return Cache(_made(cache_root()) / "circuits")


def models_folder() -> Path:
    """Where models that `generate` and others compiled on the way are kept."""
    return cache_root() / "models"


def _made(folder: Path) -> Path:
    """The folder, made if it is missing, for its owner alone; NybbleError where it cannot be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
        reason = "" if writable else "Permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise NybbleError(
            f"cannot write to the cache {folder}: {reason}",
            accepted=f"set {CACHE_VARIABLE} to a directory that can be written",
        )
    return folder


@contextmanager
def shown_progress() -> Generator[Progress]:
    """A line on the error stream that says what is being done; nothing where it is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _message: None
        return
    with console.status("starting") as status:
        yield lambda message: status.update(message)


def say_warning(message: str) -> None:
    """Print what was asked for and is not done, on the error stream."""
    click.echo(f"nybble: warning: {message}", err=True)


@dataclass(frozen=True)
class ModelChoice:
    """A model and how to compile it.

    model: what the user calls it. asked: what the user asked for by name, to be held against an
    artifact, which was compiled before.
    """

    model: str
    options: CompileOptions
    asked: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def is_artifact(self) -> bool:
        """Whether the model is a directory of `nybble compile`."""
        return (Path(self.model) / MANIFEST).is_file()

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The model's file or folder, checked to be something that can be compiled."""
        checkpoint = requantized(open_checkpoint(self.model), self.options.weights)
        if self.options.weights.retaining is not None:
            checkpoint = with_scorers(checkpoint, self.options.weights.retaining)
        check_weights(checkpoint)
        return checkpoint

    @cached_property
    def context(self) -> int:
        """Tokens that a text may have."""
        if self.is_artifact:
            return open_artifact(Path(self.model)).plan.config.context
        most = int(self.checkpoint.config["max_position_embeddings"])
        asked = self.asked.get("context")
        if isinstance(asked, int) and asked > most:
            raise NybbleError(f"a context of {asked} tokens", accepted=f"up to {most}, the model's")
        return min(self.options.context, most)

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; nothing is compiled for it."""
        if self.is_artifact:
            return read_tokenizer(Path(self.model))
        return tokenizer_of(self.checkpoint)

    def artifact(self) -> Path:
        """The artifact of the model, compiled now if it was not before.

        Several processes that want the same one take turns, and all but the first find it there.
        """
        if self.is_artifact:
            self._check_asked()
            return Path(self.model)
        self.say_notes()
        folder = _made(models_folder()) / self._key()
        with FileLock(folder.with_suffix(".lock")):
            if not _is_usable(folder):
                _remove_drafts(folder)
                self.compile_to(folder)
        return folder

    def say_notes(self) -> None:
        """Print on the error stream what is done to the model's weights and may be unexpected."""
        said = note(self.checkpoint.tensors, self.options.weights)
        if said:
            click.echo(f"nybble: note: {said}", err=True)

    def compile_to(self, folder: Path) -> None:
        """Compile the model into a folder."""
        try:
            with shown_progress() as progress:
                self.compiler(progress).write(folder)
        finally:
            close_idle()

    def compiler(self, progress: Progress) -> ModelCompiler:
        """The compilation of the model, not yet begun."""
        importer = partial(import_in_child, weights=self.options.weights)
        return ModelCompiler(
            self.checkpoint, self._fitting(), importer, kernel_cache(), progress, say_warning
        )

    def _fitting(self) -> CompileOptions:
        return replace(self.options, context=self.context)

    def _check_asked(self) -> None:
        """Raise where an artifact is not what the command line asks for."""
        config = open_artifact(Path(self.model)).plan.config
        found = {**config.extra, "context": config.context}
        for name, value in self.asked.items():
            if found.get(name) != value:
                raise NybbleError(
                    f"{self.model} was compiled with {name} {found.get(name) or '-'}, not {value}",
                    accepted=f"no --{name}, or the model itself instead of the artifact",
                )

    def _key(self) -> str:
        path = self.checkpoint.path
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        scorers = self.options.weights.retaining
        files += [] if scorers is None else [scorers]
        parts = [
            [file_facts(file) for file in files],
            asdict(self._fitting()),
            str(native()),
            versions(),
            version("nybble"),
            source_digest(),
        ]
        return sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def file_facts(file: Path) -> tuple[str, int, int]:
    """What changes when a file changes."""
    found = file.stat()
    return str(file.resolve()), found.st_size, found.st_mtime_ns


def source_digest() -> str:
    """A digest of the installed nybble's own files: an edited compiler compiles anew."""
    folders = [part.resolve() for part in Path(nybble.__file__).parent.iterdir() if part.is_dir()]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return sha256(repr([file_facts(file) for file in files]).encode()).hexdigest()


def check_weights(checkpoint: Checkpoint) -> None:
    """Raise NybbleError for a model with a weight that the CPU backend cannot hold."""
    seen: dict[tuple[str, tuple[int, ...]], str] = {}
    for name, tensor in checkpoint.tensors.items():
        seen.setdefault((tensor.format, tensor.shape), name)
    for (spec, shape), name in seen.items():
        if len(shape) != 2:
            continue
        try:
            layout_of(formats.get(spec), (shape[0], shape[1]))
        except NybbleError as error:
            raise NybbleError(
                f"{checkpoint.path}: tensor '{name}': {error.message}", accepted=error.accepted
            ) from None


def _is_usable(folder: Path) -> bool:
    try:
        open_artifact(folder)
    except ArtifactError:
        return False
    return True


def _remove_drafts(folder: Path) -> None:
    """Delete what a killed process left of this artifact; call it under the artifact's lock."""
    for draft in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def choose(
    model: str,
    activations: str | None,
    kv: str | None,
    context: int | None,
    isa: str | None,
    threads: int | None = None,
    weights: WeightChoice = AS_STORED,
    attention: str = "",
) -> ModelChoice:
    """The choice that options make; None leaves an option to nybble. NybbleError for a bad isa."""
    check_isa(isa)
    given = {
        "activations": cpu_mode(activations),
        "kv": kv,
        "context": context,
        "isa": isa,
        "weights": weights.describe() or None,
        "attention": attention or None,
    }
    options = CompileOptions(
        activations=activations or "i8",
        kv=kv,
        context=context or DEFAULT_CONTEXT,
        threads=max(os.cpu_count() or 1, threads or 1, 2),
        isa=isa,
        weights=weights,
        attention=attention,
    )
    asked = {name: value for name, value in given.items() if value is not None}
    return ModelChoice(model, options, asked)


def check_isa(isa: str | None) -> None:
    """Raise NybbleError for a level that does not exist or that this machine does not have."""
    missing = levels.get(isa).needs - cpu_flags() if isa else frozenset[str]()
    if missing:
        fitting = [name for name, level in levels.LEVELS.items() if level.needs <= cpu_flags()]
        raise NybbleError(
            f"this machine is not of level '{isa}': no {', '.join(sorted(missing))}",
            accepted=", ".join(fitting),
        )
