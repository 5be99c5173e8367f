"""Which problems are held out together: by workload, never by row, and for good.

A manifest in the repository says the fold of every problem of the shipped dataset, so that figures
of different days compare. A problem that is not in it gets a fold by a digest of its name.
"""

import json
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files

import numpy as np
import numpy.typing as npt

FOLDS = 5


@cache
def manifest() -> dict[str, int]:
    """Problem -> fold, as frozen."""
    text = files("nybble.costmodel.learned").joinpath("splits.json").read_text()
    return {str(name): int(fold) for name, fold in json.loads(text).items()}


def fold_of(problem: str) -> int:
    """The fold of a problem."""
    known = manifest().get(problem)
    return known if known is not None else int(sha256(problem.encode()).hexdigest(), 16) % FOLDS


def folds_of(problems: Sequence[str]) -> npt.NDArray[np.int64]:
    """The fold of each."""
    return np.array([fold_of(one) for one in problems], np.int64)


def spread(problems: Sequence[str]) -> dict[str, int]:
    """Folds for new problems: those of a kind (the first word) go round the folds in turn."""
    found: dict[str, int] = {}
    for number, problem in enumerate(sorted(set(problems))):
        found[problem] = number % FOLDS
    return found
