"""The sparse_attn dialect: attention, its cache and its masks."""

from xdsl.ir import Dialect

from nybble.dialects.sparse_attn.masks import CausalMask, WindowMask
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp

SparseAttn = Dialect("sparse_attn", [AppendKVOp, AttentionOp], [CausalMask, WindowMask])
