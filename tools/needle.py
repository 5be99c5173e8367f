"""Needle in a haystack: whether a model finds a number that it was told far back in a long text.

A sentence with a number stands at some depth of a text about something else; at its end the
sentence begins anew, and the model must go on with that number (Kamradt 2023). A mask that hides
the sentence cannot but fail, so this tells what a pattern loses that perplexity does not show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nybble.dialects.errors import NybbleError

SENTENCE = "\nThe secret number of the day is"
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
DIGITS = 5

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Haystack:
    """ids: the text with its question; answer: the tokens that must follow; depth: 0 to 1."""

    ids: tuple[int, ...]
    answer: tuple[int, ...]
    depth: float


def haystack(encode: Encode, filler: str, length: int, depth: float, seed: int) -> Haystack:
    """A text of `length` tokens, the answer included, with the sentence at `depth` of its filler.

    Raises NybbleError where so few tokens have no room for the sentence and its repetition.
    """
    number = "".join(str(d) for d in np.random.default_rng(seed).integers(1, 10, DIGITS))
    question = tuple(encode(SENTENCE))
    answer = tuple(encode(f"{SENTENCE} {number}"))[len(question) :]
    needle = tuple(encode(f"{SENTENCE} {number}.\n"))
    room = length - len(needle) - len(question) - len(answer)
    if room < len(needle):
        raise NybbleError(
            f"a haystack of {length} tokens",
            accepted=f"{length - room + len(needle)} or more",
        )
    straw = tuple(encode(filler))
    straw = (straw * -(-room // len(straw)))[:room]
    at = round(depth * room)
    return Haystack((*straw[:at], *needle, *straw[at:], *question), answer, depth)


def found(stack: Haystack, answer: Callable[[Sequence[int], int], Sequence[int]]) -> bool:
    """Whether what follows the text (`answer` of ids and a number of tokens) is the number."""
    return tuple(answer(stack.ids, len(stack.answer))) == stack.answer
