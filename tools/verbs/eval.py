"""nybble eval: perplexity of a model on a text, and whether it finds what a long text hides."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import click
import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.session import Session
from nybble.dialects.errors import NybbleError
from nybble.frontend.calibration_text import calibration_text
from nybble.frontend.text import Tokenizer
from nybble.frontend.weight_choice import WeightChoice
from nybble.tools.diagnostics import UsageError
from nybble.tools.files import read_text, write_output
from nybble.tools.model_options import json_option, model_options
from nybble.tools.models import choose
from nybble.tools.needle import DEPTHS, found, haystack


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


def needle(session: Session, tokenizer: Tokenizer, length: int) -> list[dict[str, object]]:
    """Whether the model finds a number at each depth of a text of `length` tokens."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    def answer(ids: Sequence[int], count: int) -> list[int]:
        session.reset()
        return list(session.generate(ids, limit=count))

    stacks = [haystack(encode, calibration_text(), length, d, i) for i, d in enumerate(DEPTHS)]
    return [{"depth": stack.depth, "found": found(stack, answer)} for stack in stacks]


@click.command(name="eval")
@click.argument("model")
@click.option("--text", "file", help="A UTF-8 text file; - is standard input.")
@click.option(
    "--window", type=click.IntRange(4), default=512, show_default=True, help="Tokens of a window."
)
@click.option("--tokens", type=click.IntRange(4), help="Use this many tokens of the text at most.")
@click.option(
    "--needle",
    "has_needle",
    is_flag=True,
    help="Ask for a number hidden in a text of --window tokens.",
)
@json_option
@model_options
def command(
    model: str,
    file: str | None,
    window: int,
    tokens: int | None,
    has_needle: bool,
    json_file: str | None,
    activations: str | None,
    kv: str | None,
    attention: str,
    context: int | None,
    isa: str | None,
    threads: int | None,
    weights: WeightChoice,
) -> None:
    """Print the perplexity of MODEL on a text, or whether it finds what a long text hides."""
    if (file is None) is not has_needle:
        raise UsageError("one thing is evaluated at a time", accepted="--text FILE or --needle")
    choice = choose(model, activations, kv, context, isa, threads, weights, attention)
    tokenizer = choice.tokenizer()
    if file is None:
        check_window(window, window, choice.context)
        session = Session.load(choice.artifact(), threads)
        report = needle_report(needle(session, tokenizer, window), window)
    else:
        ids = tokenizer.encode(read_text(file), add_special_tokens=False)[:tokens]
        check_window(len(ids), window, choice.context)
        session = Session.load(choice.artifact(), threads)
        scored = perplexity(session, ids, window)
        report = {"perplexity": scored.perplexity, "tokens": scored.tokens, "window": window}
    session.close()
    if json_file is not None:
        write_output(json_file, (json.dumps(report) + "\n").encode())
    elif file is None:
        click.echo(f"found {report['found']} of {len(DEPTHS)} needles in {window} tokens")
    else:
        click.echo(f"perplexity {report['perplexity']:.4f} over {report['tokens']} tokens")


def needle_report(needles: Sequence[dict[str, object]], window: int) -> dict[str, object]:
    """The keys of `--json` with `--needle`."""
    return {
        "needles": list(needles),
        "found": sum(bool(one["found"]) for one in needles),
        "window": window,
    }
