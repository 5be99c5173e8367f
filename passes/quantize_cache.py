"""Pass `quantize-cache`: let the key-value caches of a module be held in another format.

Before:

```mlir
func.func @f(%q: tensor<?x64xf32>, %k: tensor<2x512x32xf16>, %v: tensor<2x512x32xf16>,
             %p: index) -> tensor<?x64xf32> {
  %a = sparse_attn.attention %q, %k, %v at %p mask <"causal"> scale 2.500000e-01 :
      tensor<?x64xf32>, tensor<2x512x32xf16>, tensor<2x512x32xf16> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
```

After with `quantize-cache{kv=kivi4 rows=64}`:

```mlir
func.func @f(%q: tensor<?x64xf32>, %k: !sparse_attn.cache<keys 2x512x32, "kivi4", 256>,
             %v: !sparse_attn.cache<values 2x512x32, "kivi4", 256>, %p: index) -> tensor<?x64xf32> {
  %a = sparse_attn.attention %q, %k, %v at %p mask <"causal"> scale 2.500000e-01 :
      tensor<?x64xf32>, !sparse_attn.cache<keys 2x512x32, "kivi4", 256>,
      !sparse_attn.cache<values 2x512x32, "kivi4", 256> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
```

With a format of turned keys ("-h") the queries of attention, the keys that are appended, and what
chooses pages by the two go through `fused.hadamard` of each head first. What else reads these
values has them as they were.

Caches are the arguments that attention reads, and what appends make of them.

Does not handle: one cache for keys and values; a cache that something else reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, TensorType, i64
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import HadamardOp
from nybble.dialects.locations import location_of
from nybble.dialects.shapes import tensor_shape
from nybble.dialects.sparse_attn.cache_type import CacheType, cache_shape
from nybble.dialects.sparse_attn.kv import KEYS, VALUES, KvError, KvFormat, parse
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp, PartialOp
from nybble.dialects.sparse_attn.pages import AppendBoundsOp, SelectPagesOp, bounds_shape

TENSORS = ("f32", "f16")
"""Formats whose caches are plain tensors."""


@dataclass(frozen=True)
class QuantizeCache(ModulePass):
    """Change the type of caches; see the module's text.

    kv: a format of `sparse_attn.kv`. rows: the most tokens that one call appends.
    """

    name = "quantize-cache"
    kv: str
    rows: int = 512

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        quantize_caches(op, self.kv, self.rows)


def quantize_caches(module: ModuleOp, kv: str, rows: int) -> None:
    """Change the caches of all functions; raises NybbleError at what cannot be changed."""
    form = parse(kv)
    if form.name in TENSORS:
        raise KvError(f"a cache of {form} is a tensor", accepted="bf16, kvN, kiviN")
    for function in [found for found in module.walk() if isinstance(found, func.FuncOp)]:
        quantize_function(function, form, rows)


def quantize_function(function: func.FuncOp, kv: KvFormat, rows: int) -> None:
    """Change the caches of one function; raises NybbleError at what cannot be changed."""
    found: dict[SSAValue, str] = {}
    for op in function.walk():
        if isinstance(op, AttentionOp | PartialOp):
            for side, value in ((KEYS, op.keys), (VALUES, op.values)):
                for one in versions(value):
                    if found.setdefault(one, side) != side:
                        where = location_of(op)
                        raise NybbleError("one cache is both keys and values", location=where)
    for value, side in found.items():
        assert isinstance(value.type, TensorType)
        shape = tensor_shape(value)
        kv.check(*shape[1:])
        Rewriter.replace_value_with_new_type(value, CacheType.of(side, shape, kv, rows))
    if found:
        function.update_function_type()
    if kv.turned:
        turn_heads(function)


def turn_heads(function: func.FuncOp) -> None:
    """rewrite: `attention(q, append(k, cache)) -> attention(hadamard(q), append(hadamard(k), ..))`,
    of each head, in caches of turned keys and in what chooses their pages."""
    turned: dict[SSAValue, SSAValue] = {}
    for op, rows, head_dim in list(_readers_of_heads(function)):
        if rows not in turned:
            turned[rows] = _hadamard(function, rows, head_dim)
        op.operands[list(op.operands).index(rows)] = turned[rows]


def _readers_of_heads(function: func.FuncOp) -> Iterator[tuple[Operation, SSAValue, int]]:
    """What takes queries or keys, these, and the features of a head."""
    for op in function.walk():
        match op:
            case AttentionOp() | PartialOp():
                yield op, op.query, cache_shape(op.keys)[2]
            case AppendKVOp() if isinstance(op.cache.type, CacheType):
                if op.cache.type.side.data == KEYS:
                    yield op, op.rows, cache_shape(op.cache)[2]
            case AppendBoundsOp():
                yield op, op.rows, bounds_shape(op.bounds)[2]
            case SelectPagesOp():
                yield op, op.query, bounds_shape(op.bounds)[2]
            case _:
                pass


def _hadamard(function: func.FuncOp, rows: SSAValue, head_dim: int) -> SSAValue:
    op = HadamardOp(
        operands=[rows],
        result_types=[rows.type],
        properties={"block": IntegerAttr(head_dim, i64)},
    )
    block = function.body.block
    here = isinstance(rows, OpResult)
    Rewriter.insert_op(op, InsertPoint.after(rows.op) if here else InsertPoint.at_start(block))
    return op.result


def versions(value: SSAValue) -> Iterator[SSAValue]:
    """A cache, and what it was before tokens were appended."""
    yield value
    while isinstance(value, OpResult) and isinstance(value.op, AppendKVOp):
        value = value.op.cache
        yield value


def held_as(kv: str) -> str:
    """The type of tensor that a cache has before `quantize-cache`; raises KvError."""
    exact = parse(kv).exact
    return exact if exact in TENSORS else "f32"


def needs_quantizing(kv: str) -> bool:
    """Whether a format is more than a type of tensor."""
    return parse(kv).name not in TENSORS
