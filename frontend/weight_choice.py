"""What shall become of a model's weights between its checkpoint and its artifact."""

from dataclasses import dataclass
from pathlib import Path

from nybble.dialects.errors import NybbleError

QUANTIZERS = ("nearest", "search", "gptq")
USE_INPUTS = ("gptq",)
"""Those that want to know the inputs of products, from a calibration."""
ROTATIONS = ("inputs", "stream")
"""What is rotated: the inputs of products, by transforms, or the residual stream, folded."""
ENDS_OF_ROTATED = "embed=q8_0,head=q8_0"
"""A rotation of the stream changes both ends of a model; these rules are first, others follow."""


@dataclass(frozen=True)
class WeightChoice:
    """How weights are rounded.

    formats: rules of `frontend.weight_rules`, or empty: every weight stays as it is. rotate: one of
    ROTATIONS for pass `insert-hadamard`, or empty for none. smooth: pass `fold-smoothing`.
    quantizer: one of QUANTIZERS, see `frontend.rounding`. calibration: the text that a calibration
    for the last two reads (empty: nybble's own). retaining: a file of learned heads that score
    tokens, see `frontend.scorers`.
    """

    formats: str = ""
    rotate: str = ""
    smooth: bool = False
    calibration: str = ""
    quantizer: str = QUANTIZERS[0]
    retaining: Path | None = None

    def __post_init__(self) -> None:
        if self.rotate and self.rotate not in ROTATIONS:
            raise NybbleError(f"unknown rotation '{self.rotate}'", accepted=", ".join(ROTATIONS))
        if self.quantizer not in QUANTIZERS:
            raise NybbleError(
                f"unknown quantizer '{self.quantizer}'", accepted=", ".join(QUANTIZERS)
            )

    @property
    def rules(self) -> str:
        """The rules with those that a rotation brings with it."""
        return f"{ENDS_OF_ROTATED},{self.formats}" if self.rotate == "stream" else self.formats

    @property
    def calibrates(self) -> bool:
        """Whether a calibration has to tell something about activations."""
        return self.smooth or self.quantizer in USE_INPUTS

    def describe(self) -> str:
        """In words that name the options; empty if nothing changes."""
        changes = [f"rotate={self.rotate}"] if self.rotate else []
        changes += ["smooth"] if self.smooth else []
        changes += [self.quantizer] if self.quantizer != QUANTIZERS[0] else []
        changes += [f"retaining={self.retaining}"] if self.retaining else []
        return " ".join([self.formats, *changes]).strip()


AS_STORED = WeightChoice()
