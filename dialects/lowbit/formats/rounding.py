"""What a quantizer may be told beside the format: choices that leave no trace in the bytes."""

from dataclasses import dataclass

from nybble.dialects.lowbit.formats.arrays import F32
from nybble.dialects.lowbit.formats.errors import FormatError

TERNARY = ("twn", "absmean")


@dataclass(frozen=True, eq=False)
class Rounding:
    """How to round.

    ternary: the scale of ternary weights: "twn" is the mean of the magnitudes above 0.7 of the mean
    (Ternary Weight Networks, arXiv 1605.04711; exact for weights that are ternary already),
    "absmean" the mean magnitude (BitNet b1.58, arXiv 2402.17764).
    activations: f32 [cols], the largest magnitude of each input, for a format with smoothing.
    spread: what the range of a group is multiplied by, in formats that store its minimum.
    """

    ternary: str = "twn"
    activations: F32 | None = None
    spread: float = 1.0

    def __post_init__(self) -> None:
        if self.ternary not in TERNARY:
            raise FormatError(f"ternary scale '{self.ternary}'", accepted=", ".join(TERNARY))


NEAREST = Rounding()
