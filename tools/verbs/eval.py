"""nybble eval: perplexity of a model on a text."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.session import Session
from nybble.dialects.errors import NybbleError
from nybble.frontend.text import read_tokenizer
from nybble.tools.files import write_output
from nybble.tools.models import choose, model_options


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood of `tokens` scored tokens."""

    perplexity: float
    tokens: int


def perplexity(session: Session, ids: Sequence[int], window: int) -> Perplexity:
    """Score the second half of each whole window of `ids`, each window from an empty context.

    The method of llama.cpp's perplexity tool: windows do not overlap, and the first half of each
    only serves as context. Raises NybbleError for a text shorter than one window.
    """
    if not 4 <= window <= session.context:
        raise NybbleError(f"a window of {window} tokens", accepted=f"4 to {session.context}")
    starts = range(0, len(ids) - window + 1, window)
    if not starts:
        raise NybbleError(
            f"the text has {len(ids)} tokens", accepted=f"at least one window of {window}"
        )
    values = [score_window(session, ids[start : start + window]) for start in starts]
    scored = np.concatenate(values)
    return Perplexity(math.exp(float(scored.mean(dtype=np.float64))), len(scored))


def score_window(session: Session, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """The negative log-likelihood of each token of the window's second half: f32 [half]."""
    session.reset()
    return session.likelihoods(ids)[len(ids) // 2 :]


@click.command(name="eval")
@click.argument("model")
@click.option(
    "--text", "file", required=True, type=click.Path(path_type=Path), help="A UTF-8 text file."
)
@click.option("--window", type=int, default=512, show_default=True, help="Tokens of a window.")
@click.option("--tokens", type=click.IntRange(1), help="Use this many tokens of the text at most.")
@click.option("--json", "json_file", metavar="FILE", help="Write a JSON report; - is stdout.")
@model_options
def command(
    model: str,
    file: Path,
    window: int,
    tokens: int | None,
    json_file: str | None,
    activations: str,
    kv: str | None,
    context: int,
    isa: str | None,
    threads: int | None,
) -> None:
    """Print the perplexity of MODEL on a text."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NybbleError(f"{file} is no UTF-8 text: {error.reason}") from error
    folder = choose(model, activations, kv, context, isa).artifact()
    ids = read_tokenizer(folder).encode(text, add_special_tokens=False)
    session = Session.load(folder, threads)
    found = perplexity(session, ids[:tokens], window)
    report = {"perplexity": found.perplexity, "tokens": found.tokens, "window": window}
    if json_file is not None:
        write_output(json_file, (json.dumps(report) + "\n").encode())
    else:
        click.echo(f"perplexity {found.perplexity:.4f} over {found.tokens} tokens")
