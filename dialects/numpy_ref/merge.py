"""Joining attentions over disjoint keys (FlashAttention, arXiv:2205.14135, section 3.1).

The part of a set of keys is (max, sum, acc): the largest logit m, sum(exp(s - m)) and
sum(exp(s - m) v). Joining is associative and commutative up to rounding; its neutral element is
the part of no keys, (-inf, 0, 0).
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating]
Part = tuple[Floats, Floats, Floats]
"""max and sum [n, heads]; acc [n, heads, d]."""


def merge(left: Part, right: Part) -> Part:
    """The part of the union of two disjoint sets of keys."""
    largest = np.maximum(left[0], right[0])
    centre = np.where(largest == -np.inf, 0.0, largest)
    a, b = np.exp(left[0] - centre), np.exp(right[0] - centre)
    total = a * left[1] + b * right[1]
    return largest, total, a[..., None] * left[2] + b[..., None] * right[2]


def finish(total: Floats, acc: Floats) -> Floats:
    """The attention of a part, [n, heads, d]; 0 where no key was seen."""
    return acc / np.where(total == 0, 1.0, total)[..., None]
