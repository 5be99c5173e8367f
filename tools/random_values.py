"""Random arguments for a function at the operators stage, and their bytes in its buffers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    Float16Type,
    Float32Type,
    IndexType,
    IntegerType,
    TensorType,
)
from xdsl.ir import Attribute, BlockArgument, SSAValue

from nybble.backends.cpu.bindings.attention import cache_of
from nybble.backends.cpu.compute_layouts import pack_weight
from nybble.backends.cpu.kernels.kv import KvCache
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import EmbedOp, NllOp, RopeOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.formats import Format, Weight
from nybble.dialects.lowbit.formats.grid_blocks import GRID_BLOCKS
from nybble.dialects.lowbit.formats.numeric import encode_floats
from nybble.dialects.lowbit.formats.table_element import Grid
from nybble.dialects.lowbit.types import STORAGE, LowBitTensorType
from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.sparse_attn.cache_type import CacheType, cache_shape
from nybble.dialects.sparse_attn.kv import KEYS
from nybble.dialects.sparse_attn.masks.blocks import selections_of
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp, PartialOp

Array = npt.NDArray[np.generic]
Bytes = npt.NDArray[np.uint8]
KV_NAMES = {"float32": "f32", "float16": "f16"}
Value = Array | Weight | float | int
"""What the interpreter takes: an array, a low-bit matrix, or a number."""


@dataclass(frozen=True)
class Inputs:
    """How to make arguments. tokens: rows where their number is dynamic; position: of the first."""

    tokens: int
    position: int
    seed: int

    def of(self, function: func.FuncOp) -> list[Value]:
        """A value for each argument; equal seeds give equal values."""
        random = np.random.default_rng(self.seed)
        try:
            return [self._value(argument, random) for argument in function.body.block.args]
        except NybbleError as fault:
            fault.location = fault.location or location_of(function)
            raise

    def _value(self, argument: SSAValue, random: np.random.Generator) -> Value:
        match argument.type:
            case IndexType():
                return self.position
            case TensorType():
                return self._tensor(argument, argument.type, random)
            case LowBitTensorType() as type_:
                rows = self.tokens if type_.rows == DYNAMIC_INDEX else type_.rows
                return random_weight(type_.number_format, (rows, type_.cols), random)
            case CacheType() as type_:
                tokens = random.standard_normal(type_.get_shape(), np.float32)
                return type_.format.rounded(tokens)
            case Float32Type():
                return float(np.float32(random.uniform(0.5, 1.0)))
            case IntegerType():
                return int(random.integers(0, 8))
            case other:
                raise refusal(other)

    def _tensor(
        self, argument: SSAValue, type_: TensorType[Attribute], random: np.random.Generator
    ) -> Array:
        shape = [self.tokens if dim == DYNAMIC_INDEX else dim for dim in type_.get_shape()]
        match type_.element_type:
            case Float32Type():
                return random.standard_normal(shape, np.float32)
            case Float16Type():
                return random.standard_normal(shape, np.float32).astype(np.float16)
            case IntegerType() as element if element.width.data == 32:
                return random.integers(0, index_bound(argument), shape, np.int32)
            case _:
                raise refusal(type_)


def random_weight(form: Format, shape: tuple[int, int], random: np.random.Generator) -> Weight:
    """A weight [rows, cols] of normally distributed numbers over sqrt(cols).

    Of a vector codebook, which has no quantizer, one of random codes.
    """
    cols = shape[1]
    if isinstance(form.element, Grid):
        return form.unpack(_random_blocks(form, shape, random), cols)
    return form.quantize(random.standard_normal(shape, np.float32) / np.float32(cols) ** 0.5)


def _random_blocks(form: Format, shape: tuple[int, int], random: np.random.Generator) -> Bytes:
    """Bytes of a vector codebook, u8 [rows, row_bytes], with scales between 2**-11 and 2**-10."""
    rows, cols = shape
    raw = random.integers(0, 256, (rows, form.row_bytes(cols)), np.uint8)
    blocks = raw.reshape(-1, GRID_BLOCKS[form.store].bytes)
    exponent = np.uint8(0x10)
    if "d" in dict(GRID_BLOCKS[form.store].fields):
        blocks[:, 1] = blocks[:, 1] & np.uint8(3) | exponent
    else:  # iq1_m has the bits of its f16 scale on top of four words, the high ones last
        blocks[:, -1] = blocks[:, -1] & np.uint8(0x0F) | exponent
    return raw


def refusal(type_: Attribute) -> NybbleError:
    """The error about an argument of a type that has no random values."""
    return NybbleError(
        f"no random value for an argument of type {type_}",
        accepted="index, f32, integers, !lowbit.tensor, caches, and tensors of f32, f16 or i32",
    )


def index_bound(argument: SSAValue) -> int:
    """How many rows a vector of integers may choose from: of a table, of logits, else two."""
    bounds = [2]
    for use in argument.uses:
        op = use.operation
        if isinstance(op, EmbedOp) and isinstance(op.table.type, LowBitTensorType):
            bounds.append(op.table.type.rows)
        elif isinstance(op, NllOp) and isinstance(op.logits.type, TensorType):
            bounds.append(op.logits.type.get_shape()[1])
        elif isinstance(op, AttentionOp | PartialOp):
            bounds.append(runs_of_list(op, argument))
    return bounds[-1]


def runs_of_list(op: AttentionOp | PartialOp, argument: SSAValue) -> int:
    """How many runs of keys a list of an attention may choose from."""
    selection = selections_of(op.mask.mask)[list(op.selected).index(argument)]
    return cache_shape(op.keys)[1] // selection.size


def key_caches(function: func.FuncOp) -> frozenset[int]:
    """The numbers of the arguments that attention reads keys from, at the operators stage.

    Of tensors alone: other caches say what they are in their type.
    """
    found = [op.keys for op in function.walk() if isinstance(op, AttentionOp | PartialOp)]
    found += [
        op.cache
        for op in function.walk()
        if isinstance(op, AppendKVOp) and isinstance(op.rows.owner, RopeOp)
    ]
    sources = [key.owner.cache if isinstance(key.owner, AppendKVOp) else key for key in found]
    tensors = (key for key in sources if isinstance(key.type, TensorType))
    return frozenset(key.index for key in tensors if isinstance(key, BlockArgument))


def stored_keys(values: Array) -> Array:
    """A cache of keys [heads, context, head_dim] as the kernels keep it: flat."""
    heads, context, dim = values.shape
    cache = KvCache(heads, dim, context, KV_NAMES[values.dtype.name])
    return cache.keys_from_rows(cast("npt.NDArray[np.float32]", values))


def loaded_keys(flat: Array, shape: Sequence[int]) -> Array:
    """The cache [heads, context, head_dim] out of what the kernels keep."""
    heads, context, dim = shape
    cache = KvCache(heads, dim, context, KV_NAMES[flat.dtype.name])
    return cache.keys_as_rows(cast("npt.NDArray[np.float32]", flat))


def cache_arrays(type_: CacheType, tokens: KvArray, end: int) -> Sequence[Array]:
    """The buffers of a cache after `end` tokens, of all tokens [heads, context, head_dim]."""
    cache, side = cache_of(type_), type_.side.data
    if isinstance(cache, KvPages):
        return [*cache.pack(side, tokens, end).values()]
    words = encode_floats(cache.dtype, tokens.astype(np.float32)).view(np.uint16)
    return [cache.keys_from_rows(words) if side == KEYS else words]


def buffers_of(value: Value, type_: Attribute, end: int = 0) -> Sequence[Array]:
    """The arrays that a value occupies in the buffers of a lowered function.

    A weight in a compute layout is one, a quantized activation three: codes, scales, sums. end: of
    a cache with codes, how many tokens it holds.
    """
    match type_:
        case CacheType():
            return cache_arrays(type_, cast("KvArray", value), end)
        case LowBitTensorType() if isinstance(value, Weight):
            return _low_bit(value, type_)
        case IntegerType():
            return [np.array([value], f"i{type_.width.data // 8}")]
        case Float32Type():
            return [np.array([value], np.float32)]
        case _:
            return [np.asarray(value)]


def _low_bit(value: Weight, type_: LowBitTensorType) -> Sequence[Array]:
    description = type_.number_format
    if type_.layout.data != STORAGE:
        return [pack_weight(type_, value)]
    codes = value.require_codes().astype(np.int16) - value.zero_point
    sums = codes.reshape(len(codes), -1, description.group).sum(axis=2, dtype=np.int32)
    return [codes.astype(np.int8), value.scale, sums]
