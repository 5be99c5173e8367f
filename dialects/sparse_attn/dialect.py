"""The sparse_attn dialect: attention, its cache and its masks."""

from xdsl.ir import Dialect

from nybble.dialects.sparse_attn.cache_type import CacheType
from nybble.dialects.sparse_attn.mask_attr import MaskAttr
from nybble.dialects.sparse_attn.ops import (
    AppendKVOp,
    AttentionOp,
    FinishOp,
    MergeOp,
    PartialOp,
)
from nybble.dialects.sparse_attn.pages import AppendBoundsOp, SelectPagesOp
from nybble.dialects.sparse_attn.retain import RetainOp

SparseAttn = Dialect(
    "sparse_attn",
    [
        AppendBoundsOp,
        AppendKVOp,
        AttentionOp,
        FinishOp,
        MergeOp,
        PartialOp,
        RetainOp,
        SelectPagesOp,
    ],
    [MaskAttr, CacheType],
)
