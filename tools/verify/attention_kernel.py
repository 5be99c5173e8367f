"""What kernels of attention that are verified have in common: shape, text and random values."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from nybble.tools.random_values import Value

CONTEXT = 256


@dataclass(frozen=True)
class AttentionKernel(ABC):
    """A kernel of one attention. rows: of queries, each of `heads` times `d` numbers."""

    mask: str
    kv: str
    softmax: str
    heads: int
    kv_heads: int
    d: int
    rows: int

    @abstractmethod
    def text(self) -> str:
        """A function around the attention."""

    @abstractmethod
    def values(self, seed: int, number: int) -> list[Value]:
        """The function's arguments in a case, the position last."""

    def position(self, random: np.random.Generator, first: int = 0) -> int:
        """Where the first row stands, every fifth time at an end: `first`, 0 or the last one."""
        position = int(random.integers(0, CONTEXT - self.rows + 1))
        if random.random() < 0.2:
            position = int(random.choice([*{0, first}, CONTEXT - self.rows]))
        return position
