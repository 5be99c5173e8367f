"""nybble eval: perplexity of a model on a text."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import click
import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.session import Session
from nybble.dialects.errors import NybbleError
from nybble.frontend.weight_choice import WeightChoice
from nybble.tools.files import read_text, write_output
from nybble.tools.model_options import json_option, model_options
from nybble.tools.models import choose


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood of `tokens` scored tokens."""

    perplexity: float
    tokens: int


def check_window(tokens: int, window: int, context: int) -> None:
    """Raise NybbleError unless a text of so many tokens has a window that fits the context."""
    if not 4 <= window <= context:
        raise NybbleError(f"a window of {window} tokens", accepted=f"4 to {context}, the context")
    if tokens < window:
        raise NybbleError(
            f"the text has {tokens} tokens",
            accepted=f"at least one window of {window}; --window takes a smaller one",
        )


def perplexity(session: Session, ids: Sequence[int], window: int) -> Perplexity:
    """Score the second half of each whole window of `ids`, each window from an empty context.

    The method of llama.cpp's perplexity tool: windows do not overlap, and the first half of each
    only serves as context. Raises NybbleError for a text shorter than one window.
    """
    check_window(len(ids), window, session.context)
    starts = range(0, len(ids) - window + 1, window)
    values = [score_window(session, ids[start : start + window]) for start in starts]
    scored = np.concatenate(values)
    return Perplexity(math.exp(float(scored.mean(dtype=np.float64))), len(scored))


def score_window(session: Session, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """The negative log-likelihood of each token of the window's second half: f32 [half]."""
    session.reset()
    return session.likelihoods(ids)[len(ids) // 2 :]


@click.command(name="eval")
@click.argument("model")
@click.option("--text", "file", required=True, help="A UTF-8 text file; - is standard input.")
@click.option(
    "--window", type=click.IntRange(4), default=512, show_default=True, help="Tokens of a window."
)
@click.option("--tokens", type=click.IntRange(4), help="Use this many tokens of the text at most.")
@json_option
@model_options
def command(
    model: str,
    file: str,
    window: int,
    tokens: int | None,
    json_file: str | None,
    activations: str | None,
    kv: str | None,
    context: int | None,
    isa: str | None,
    threads: int | None,
    weights: WeightChoice,
) -> None:
    """Print the perplexity of MODEL on a text."""
    text = read_text(file)
    choice = choose(model, activations, kv, context, isa, threads, weights)
    ids = choice.tokenizer().encode(text, add_special_tokens=False)[:tokens]
    check_window(len(ids), window, choice.context)
    session = Session.load(choice.artifact(), threads)
    found = perplexity(session, ids, window)
    session.close()
    report = {"perplexity": found.perplexity, "tokens": found.tokens, "window": window}
    if json_file is not None:
        write_output(json_file, (json.dumps(report) + "\n").encode())
    else:
        click.echo(f"perplexity {found.perplexity:.4f} over {found.tokens} tokens")
