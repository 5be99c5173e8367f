"""What shall become of a model's weights between its checkpoint and its artifact."""

from dataclasses import dataclass

from nybble.dialects.errors import NybbleError

QUANTIZERS = ("nearest", "search")
ENDS_OF_ROTATED = "embed=q8_0,head=q8_0"
"""A rotation changes both ends of a model; these rules are theirs unless others follow."""


@dataclass(frozen=True)
class WeightChoice:
    """How weights are rounded.

    formats: rules of `frontend.weight_rules`, or empty: every weight stays as it is. rotate: pass
    `insert-hadamard`. smooth: pass `fold-smoothing`, by a calibration on the text `calibration`
    (empty: nybble's own). quantizer: one of QUANTIZERS, see `frontend.rounding`.
    """

    formats: str = ""
    rotate: bool = False
    smooth: bool = False
    calibration: str = ""
    quantizer: str = QUANTIZERS[0]

    def __post_init__(self) -> None:
        if self.quantizer not in QUANTIZERS:
            raise NybbleError(
                f"unknown quantizer '{self.quantizer}'", accepted=", ".join(QUANTIZERS)
            )

    @property
    def rules(self) -> str:
        """The rules with those that a rotation brings with it."""
        return f"{ENDS_OF_ROTATED},{self.formats}" if self.rotate else self.formats

    def describe(self) -> str:
        """In words that name the options; empty if nothing changes."""
        changes = [name for name in ("rotate", "smooth") if getattr(self, name)]
        changes += [self.quantizer] if self.quantizer != QUANTIZERS[0] else []
        return " ".join([self.formats, *changes]).strip()


AS_STORED = WeightChoice()
