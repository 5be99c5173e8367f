"""The attention of a whole model: a mask for each layer, in the spelling of masks.

    policy = mask | "layers" "(" { set ":" mask ";" } "else" ":" mask ")"

A set names layers as it does heads in `heads(..)`, as in `layers(0,5-7:causal;else:window(256))`.
"""

from dataclasses import dataclass

from nybble.dialects.sparse_attn.masks.combine import HeadSet
from nybble.dialects.sparse_attn.masks.errors import MaskError
from nybble.dialects.sparse_attn.masks.grammar import Reader
from nybble.dialects.sparse_attn.masks.mask import Mask


@dataclass(frozen=True)
class Policy:
    """cases: the layers that have a mask of their own, disjoint; otherwise: that of all others."""

    cases: tuple[tuple[HeadSet, Mask], ...]
    otherwise: Mask

    def __str__(self) -> str:
        if not self.cases:
            return str(self.otherwise)
        cases = "".join(f"{layers}:{mask};" for layers, mask in self.cases)
        return f"layers({cases}else:{self.otherwise})"

    def mask(self, layer: int) -> Mask:
        """The mask of a layer."""
        return next((mask for layers, mask in self.cases if layers.has(layer)), self.otherwise)

    def check(self, layers: int, context: int, heads: int) -> None:
        """Raise MaskError unless this fits a model of `layers` layers and `heads` key heads."""
        for named, _ in self.cases:
            last = named.ranges[-1][1]
            if last is not None and last >= layers:
                raise MaskError(f"{self} names layer {last}", accepted=f"0 to {layers - 1}")
        for layer in range(layers):
            self.mask(layer).check(context, heads)


def parse_policy(text: str) -> Policy:
    """The policy that a text spells; raises MaskError."""
    reader = Reader(text)
    if reader.take("layers"):
        cases, otherwise = reader.cases(lambda: reader.union(0))
    else:
        cases, otherwise = [], reader.union(0)
    reader.expect("")
    return Policy(tuple(cases), otherwise)
