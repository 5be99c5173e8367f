"""A scheduled kernel as a sequence of tokens: what sequence models of MLIR read.

The tokens are those of "ML-based cost models for MLIR" (arXiv:2302.11405): opcodes, operands and
shapes. Names of values are normalised away; a schedule's sizes are tokens too, for otherwise
nothing in the text would tell two candidates apart.
"""

import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

_TOKEN = re.compile(
    r"%[a-z0-9_]+|![a-z_.]+|#[a-z_.]+|[a-z_]+\.[a-z_0-9]+|[0-9?]+(?:x[0-9?a-z]+)+|\"[^\"]*\"|[0-9.e+-]+|[a-z_]+"
)


def tokens(text: str, options: Mapping[str, int], calls: Mapping[str, int]) -> list[str]:
    """The tokens of a canonical text, then those of its schedule and of the call."""
    found = ["%" if one[0] == "%" else one for one in _TOKEN.findall(text)]
    sizes = [f"{name}={value}" for name, value in sorted({**options, **calls}.items())]
    return found + sizes


def ngrams(sequence: Sequence[str], width: int = 512) -> npt.NDArray[np.float64]:
    """Counts of tokens and of pairs of neighbours, hashed into `width` places."""
    found = np.zeros(width)
    for first, second in zip(sequence, [*sequence[1:], ""], strict=True):
        found[zlib.crc32(first.encode()) % width] += 1
        found[zlib.crc32(f"{first} {second}".encode()) % width] += 1
    return found
