"""The text that perplexities are measured on, made from the running Python's own files.

It needs no download: the licence of CPython, then docstrings of standard-library modules. The text
of another Python version differs a little, so a report gives its digest.
"""

import sysconfig
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib import import_module
from math import exp
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nybble.tools.bench.errors import UnavailableError

TEXT_BYTES = 25_000
WINDOW = 512
MODULES = (
    "argparse", "collections", "datetime", "decimal", "difflib", "fractions", "functools", "heapq",
    "itertools", "json", "logging", "optparse", "os", "pickle", "random", "re", "shelve", "socket",
    "statistics", "string", "subprocess", "textwrap", "threading", "timeit", "typing",
    "unittest", "urllib.parse", "zipfile",
)  # fmt: skip

Logits = NDArray[np.float32]


def sample_text(size: int = TEXT_BYTES) -> str:
    """The first `size` characters of the licence and the docstrings of MODULES.

    A Python that was installed without its licence file makes do with docstrings. Raises
    UnavailableError where it runs without those (-OO).
    """
    licence = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
    parts = [licence.read_text(encoding="utf-8")] if licence.is_file() else []
    parts += [_docstring(name) for name in MODULES]
    text = "\n\n".join(part.strip() for part in parts if part)
    if len(text) < size:
        raise UnavailableError(
            f"{len(text)} characters of text", accepted=f"{size}, of a Python with docstrings"
        )
    return text[:size]


def digest(text: str) -> str:
    """The first 16 hex digits of the text's SHA-256."""
    return sha256(text.encode()).hexdigest()[:16]


def windows(ids: Sequence[int], size: int = WINDOW) -> Iterator[list[int]]:
    """The ids in whole windows of `size`; what is left over at the end is not scored."""
    for start in range(0, len(ids) - size + 1, size):
        yield list(ids[start : start + size])


def surprise(logits: Logits, targets: Sequence[int]) -> float:
    """The negative log-likelihood of `targets`, in nats, summed; logits: f32 [targets, vocab]."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=1)
    normalizer = top + np.log(np.exp(wide - top[:, None]).sum(axis=1))
    return float((normalizer - wide[np.arange(len(targets)), list(targets)]).sum())


def perplexity(second_half: Callable[[list[int]], Logits], ids: Sequence[int]) -> float:
    """The perplexity of a model on `ids`: windows of WINDOW, the second half of each scored.

    second_half: window -> logits f32 [WINDOW / 2 - 1, vocab] of positions WINDOW / 2 to WINDOW - 2,
    each of which predicts the token after it. The windows and positions are those of llama.cpp's
    llama-perplexity. Raises UnavailableError if there is no whole window.
    """
    total, count = 0.0, 0
    for window in windows(ids):
        targets = window[WINDOW // 2 + 1 :]
        total += surprise(second_half(window), targets)
        count += len(targets)
    if not count:
        raise UnavailableError(
            f"{len(ids)} tokens are too few for a perplexity", accepted=f"{WINDOW}"
        )
    return exp(total / count)


def _docstring(name: str) -> str:
    return import_module(name).__doc__ or ""
