"""The mask algebra: which cached keys a query sees, as data that references and lowerings read."""

from nybble.dialects.sparse_attn.masks.blocks import (
    BlockForm,
    Features,
    block_form,
    dense,
    density,
    features,
)
from nybble.dialects.sparse_attn.masks.combine import ByHead, HeadSet, Intersection, Union
from nybble.dialects.sparse_attn.masks.errors import MaskError
from nybble.dialects.sparse_attn.masks.grammar import parse
from nybble.dialects.sparse_attn.masks.mask import Mask, Pair, Tile
from nybble.dialects.sparse_attn.masks.policy import Policy, parse_policy
from nybble.dialects.sparse_attn.masks.selected import POLICIES, Selected
from nybble.dialects.sparse_attn.masks.static import Causal, Sink, Streaming, Stride, Window

__all__ = [
    "POLICIES",
    "BlockForm",
    "ByHead",
    "Causal",
    "Features",
    "HeadSet",
    "Intersection",
    "Mask",
    "MaskError",
    "Pair",
    "Policy",
    "Selected",
    "Sink",
    "Streaming",
    "Stride",
    "Tile",
    "Union",
    "Window",
    "block_form",
    "dense",
    "density",
    "features",
    "parse",
    "parse_policy",
]
