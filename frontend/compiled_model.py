"""A compiled language model in Python: text from a prompt, logits of tokens."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from weakref import finalize

import numpy as np
import numpy.typing as npt

from nybble.backends.cache import Cache
from nybble.backends.cpu.artifact import MANIFEST
from nybble.backends.cpu.session import Sampling, Session
from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.frontend.checkpoint import open_checkpoint
from nybble.frontend.compile_model import CompileOptions, ModelCompiler
from nybble.frontend.compiled import STAGES_FOLDER, Compiled, Notes, kernel_lines
from nybble.frontend.requantize import note, requantized
from nybble.frontend.text import Tokenizer, read_tokenizer


class CompiledModel(Compiled):
    """A language model, its tokenizer, and one text that it goes on with.

    folder: its artifact.
    """

    def __init__(self, folder: Path, notes: Notes, session: Session) -> None:
        super().__init__(notes)
        self.folder = folder
        self.session = session
        self.tokenizer: Tokenizer = read_tokenizer(folder)

    @staticmethod
    def open(folder: Path, notes: Notes, threads: int | None) -> "CompiledModel":
        """The artifact at `folder`; threads: by default one for each processor."""
        return CompiledModel(folder, notes, Session.load(folder, threads))

    def generate(
        self,
        prompt: str,
        max_tokens: int = 128,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        raw: bool = False,
    ) -> str:
        """The answer to a prompt; see `stream`."""
        sampling = Sampling(temperature, top_k, top_p, seed)
        return "".join(self.stream(prompt, max_tokens, sampling, raw=raw))

    def stream(
        self,
        prompt: str,
        max_tokens: int = 128,
        sampling: Sampling | None = None,
        *,
        raw: bool = False,
    ) -> Iterator[str]:
        """The answer piece by piece, as it is generated.

        The prompt is put in the model's chat form if it has one, unless `raw`. The answer ends
        with the model's own end, after max_tokens, or when the context is full. Raises NybbleError
        for an empty prompt or one that does not fit.
        """
        ids = self.encode(prompt, raw=raw)
        self.session.reset()
        text = self.tokenizer.stream()
        chosen = sampling or Sampling()
        for token in self.session.generate(ids, max_tokens, chosen, self.tokenizer.eos_ids):
            yield text.push(token)
        yield text.finish()

    def encode(self, prompt: str, *, raw: bool = False) -> list[int]:
        """The tokens of a prompt, in the model's chat form if it has one, unless `raw`."""
        if not prompt:
            raise NybbleError("the prompt is empty", accepted="a text")
        if raw or self.tokenizer.chat_template is None:
            return self.tokenizer.encode(prompt)
        text = self.tokenizer.chat([{"role": "user", "content": prompt}])
        return self.tokenizer.encode(text, add_special_tokens=False)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits after each token of a text: f32 [len(ids), vocabulary].

        Raises NybbleError for no tokens, unknown ones, or more than the context holds.
        """
        found = np.empty((len(ids), self.session.vocab), np.float32)

        def keep(start: int, logits: npt.NDArray[np.float32]) -> None:
            found[start : start + len(logits)] = logits

        self.session.reset()
        self.session.score(ids, keep)
        return found

    def close(self) -> None:
        """End the worker threads; nothing can run afterwards."""
        self.session.close()

    def _write(self, directory: Path) -> None:
        target = directory.absolute()
        if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
            raise NybbleError(f"{directory} is not empty", accepted="a new or empty directory")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
                copy = Path(work) / "artifact"
                shutil.copytree(self.folder, copy)
                if target.exists():
                    target.rename(Path(work) / "old")
                copy.rename(target)
        except OSError as error:
            raise NybbleError(f"cannot write {directory}: {error.strerror}") from error


def compile_model(
    model: str | Path,
    options: CompileOptions,
    cache: Cache | None,
    progress: Callable[[str], None],
) -> CompiledModel:
    """A checkpoint compiled in this process; see `nybble.frontend.api.compile`."""
    checkpoint = requantized(open_checkpoint(model), options.weights)
    said = note(checkpoint.tensors, options.weights)
    if said:
        progress(said)
    try:
        from nybble.frontend.pytorch.import_model import import_model
    except ImportError as error:
        raise NybbleError(
            f"compiling a model needs {error.name}",
            accepted="pip install 'nybble[torch]', or a directory of `nybble compile`",
        ) from None
    work = Path(tempfile.mkdtemp(prefix="nybble-model-"))
    try:
        chosen = replace(options, dump=work / STAGES_FOLDER)
        artifact = work / "artifact"
        ModelCompiler(checkpoint, chosen, import_model, cache, progress).write(artifact)
        notes = explained(Notes.read(work / STAGES_FOLDER))
        found = CompiledModel.open(artifact, notes, options.threads)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finalize(found, shutil.rmtree, work, True)
    return found


def explained(notes: Notes) -> Notes:
    """The notes of a language model with the reasons that its scheduled stage holds."""
    text = notes.stages["scheduled"]
    module = parse_module(make_context(), text, "scheduled.mlir")
    return replace(notes, reasons="\n".join(kernel_lines(module)))
