"""Operators on rows as networks of a few kinds of process: one function for each operator.

Every stream between operators has words of `Rows.lanes` neighbouring columns. What is multiplied in
which order is what the maps here say; docs/fpga.md lists the errors that come of it.
"""

from collections.abc import Callable, Sequence
from math import pi, sqrt
from typing import Any

from xdsl.dialects import arith
from xdsl.dialects.builtin import Float16Type, TensorType
from xdsl.ir import Operation, SSAValue

from nybble.backends.fpga.bindings import Binding
from nybble.backends.fpga.builder import Arithmetic
from nybble.backends.fpga.network import activations, add_product
from nybble.backends.fpga.products import design_of
from nybble.backends.fpga.row_builder import Rows, index_of, known_shape, name_of, shape_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.attention import AccumulateOp, ScoresOp, WeighOp
from nybble.dialects.fpga.caches import AppendCacheOp, HeadsAttr, ReadAtOp, ReadCacheOp
from nybble.dialects.fpga.rows import SwapOp
from nybble.dialects.fpga.types import MemoryType
from nybble.dialects.fused.ops import GluOp, RmsNormOp, RopeOp, SoftmaxOp
from nybble.dialects.mpgemm.arrays import ArrayProductOp
from nybble.dialects.sparse_attn.masks import Causal, Mask, Sink, Streaming, Union, Window
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp

CUBIC, SLOPE = 0.044715, 2 * sqrt(2 / pi)
"""GELU is x * sigmoid(SLOPE (x + CUBIC x^3)) (its tanh form, arXiv:1606.08415)."""


def add(net: Rows, op: arith.AddfOp) -> None:
    """A sum of rows, as of a residual."""
    inputs = [net.rows(op.lhs), net.rows(op.rhs)]
    net.values[op.result] = net.map("sum", inputs, lambda a, v: a.add(v[0], v[1]))


def norm(net: Rows, op: RmsNormOp) -> None:
    """`(x * (1 / sqrt(mean(x^2) + eps))) * w` of each run of columns as long as the weight."""
    rows, columns = shape_of(op.input)
    (length,) = known_shape(op.weight)
    run, eps = length // net.lanes, op.eps.value.data
    x = net.rows(op.input)
    squares = net.map("squares", [x], lambda a, v: a.multiply(v[0], v[0]))
    total = net.fold("sum", squares, run)

    def inverse(a: Arithmetic, values: Sequence[SSAValue]) -> SSAValue:
        mean = a.multiply(values[0], a.constant(1 / length))
        return a.divide(a.constant(1.0), a.sqrt(a.add(mean, a.constant(eps))))

    def scaled(a: Arithmetic, values: Sequence[SSAValue]) -> SSAValue:
        value, by, weight = values
        factor = a.add(weight, a.constant(1.0)) if op.unit_offset is not None else weight
        return a.multiply(a.multiply(value, by), factor)

    weight = net.vector(op.weight, rows * columns // length)
    by = net.map("inverse", [total], inverse)
    net.values[op.result] = net.map("normed", [x, by, weight], scaled)


def gate(net: Rows, op: GluOp) -> None:
    """`(g / (1 + exp(-z))) * u`, z being g (SiLU) or a cubic of it (GELU's tanh form).

    With a sigmoid it is 1 instead of the first g.
    """
    is_gelu, is_sigmoid = (op.activation.data == one for one in ("gelu_tanh", "sigmoid"))

    def gated(a: Arithmetic, values: Sequence[SSAValue]) -> SSAValue:
        value, up = values
        z = value
        if is_gelu:
            cube = a.multiply(a.multiply(value, value), value)
            z = a.multiply(a.add(value, a.multiply(cube, a.constant(CUBIC))), a.constant(SLOPE))
        over = a.constant(1.0) if is_sigmoid else value
        return a.multiply(a.divide(over, a.add(a.constant(1.0), a.exp(a.negate(z)))), up)

    net.values[op.result] = net.map("gated", [net.rows(op.gate), net.rows(op.up)], gated)


def rotate(net: Rows, op: RopeOp) -> None:
    """`x * c + swapped(x) * s`; tables of whole heads lie in memory, `c` twice and `s` with -s."""
    rows, columns = shape_of(op.input)
    context, half = shape_of(op.cos)
    run = 2 * half // net.lanes
    repeat = columns // (2 * half)
    x, position = net.rows(op.input), net.position(op.position)
    type_ = MemoryType.get(context * run, 32 * net.lanes)
    tables: list[SSAValue] = []
    for value, how in ((op.cos, "cos"), (op.sin, "sin")):
        memory = net.input(value, how, type_, how)
        tables.append(net.add(ReadAtOp(memory, position, run, rows, repeat), how).stream)
    swapped = net.add(SwapOp(x, run), "swapped").result
    net.values[op.result] = net.map(
        "rotated",
        [x, tables[0], swapped, tables[1]],
        lambda a, v: a.add(a.multiply(v[0], v[1]), a.multiply(v[2], v[3])),
    )


def softmax(net: Rows, op: SoftmaxOp) -> None:
    """`exp(x - max) / sum` of each row."""
    _, columns = shape_of(op.input)
    value, run = net.rows(op.input), columns // net.lanes
    largest = net.fold("max", value, run)
    raised = net.map("raised", [value, largest], lambda a, v: a.exp(a.subtract(v[0], v[1])))
    total = net.fold("sum", raised, run)
    found = net.map("softmax", [raised, total], lambda a, v: a.divide(v[0], v[1]))
    net.values[op.result] = found


def append(net: Rows, op: AppendKVOp) -> None:
    """Remembered, since an attention that reads the cache writes the row as well."""
    net.appended[op.result] = op


def attention(net: Rows, op: AttentionOp) -> None:
    """Scores, online softmax and sums of values; see `dialects.fpga.attention`."""
    check_attention(op)
    kv_heads, context, dim = known_shape(op.keys)
    _, columns = shape_of(op.query)
    sink, window = seen_by(op) or (0, context)
    heads = HeadsAttr.get(
        heads=kv_heads, group=columns // (kv_heads * dim), context=context,
        run=dim // net.lanes, lanes=net.lanes, seen=min(context, sink + window),
        sink=min(sink, context - 1),
    )  # fmt: skip
    query, position = net.rows(op.query), net.position(op.position)
    keys, values = (cache(net, op, one, heads) for one in (op.keys, op.values))
    scale = op.scale.value.data
    scores = net.add(ScoresOp(query, keys, position, scale, heads)).scores
    weigh = net.add(WeighOp(scores, position, heads))
    made = AccumulateOp(values, weigh.weights, weigh.factors, position, heads)
    net.values[op.result] = net.add(made, "attended").result


def put_row(net: Rows, op: AppendKVOp) -> SSAValue:
    """The memory of a cache that a row is written to, which no attention of the kernel reads."""
    kv_heads, context, dim = known_shape(op.cache)
    heads = HeadsAttr.get(
        heads=kv_heads, group=1, context=context, run=dim // net.lanes, lanes=net.lanes,
        seen=context, sink=0,
    )  # fmt: skip
    memory = cache_memory(net, op.cache, heads, "cache")
    net.add(AppendCacheOp(net.rows(op.rows), net.position(op.position), memory, heads))
    return memory


def cache_memory(net: Rows, source: SSAValue, heads: HeadsAttr, name: str) -> SSAValue:
    """The memory of a cache."""
    type_ = source.type
    assert isinstance(type_, TensorType)
    bits = 16 if isinstance(type_.element_type, Float16Type) else 32
    memory_type = MemoryType.get(heads.stored, bits * net.lanes)
    return net.input(source, name, memory_type, "cache")


def cache(net: Rows, op: AttentionOp, value: SSAValue, heads: HeadsAttr) -> SSAValue:
    """The stream of a cache, to which a row is appended where the region says so."""
    appended = net.appended.get(value)
    if appended is not None and appended.position != op.position:
        raise NybbleError("a row that is appended elsewhere than the query stands")
    source = value if appended is None else appended.cache
    name = "keys" if value is op.keys else "values"
    memory = cache_memory(net, source, heads, name)
    net.caches[value] = memory
    row = None if appended is None else net.rows(appended.rows)
    read = ReadCacheOp(memory, net.position(op.position), row, heads)
    return net.add(read, f"all_{name}").stream


def seen_by(op: AttentionOp) -> tuple[int, int] | None:
    """How many of the first and of the last tokens a mask shows; None for all of them, or others.

    `causal`, `window(w)` and what shows the first ones beside it.
    """
    parts: tuple[Mask, ...] = (op.mask.mask,)
    if isinstance(op.mask.mask, Streaming):
        parts = op.mask.mask.inner
    elif isinstance(op.mask.mask, Union):
        parts = op.mask.mask.parts
    sinks = [one.count for one in parts if isinstance(one, Sink)]
    windows = [one.size for one in parts if isinstance(one, Window)]
    if len(windows) != 1 or len(sinks) > 1 or len(parts) != len(sinks) + 1:
        return None
    return sum(sinks), windows[0]


def check_attention(op: AttentionOp) -> None:
    """Raise NybbleError for an attention that the processes do not compute."""
    plain = isinstance(op.keys.type, TensorType) and isinstance(op.values.type, TensorType)
    faults = {
        f"a mask '{op.mask.mask}'": not isinstance(op.mask.mask, Causal) and seen_by(op) is None,
        "a soft cap": op.softcap is not None,
        f"a cache {op.keys.type}": not plain,
        "queries of several tokens": shape_of(op.query)[0] != 1,
    }
    for what, found in faults.items():
        if found:
            raise NybbleError(
                f"attention with {what} has no kernel on an FPGA",
                accepted="one query token, a mask 'causal', 'window(w)' or 'sink(s)+window(w)', no "
                "soft cap, caches of f16 or f32",
            )


def is_alone(op: ArrayProductOp) -> bool:
    """Whether a product reads its activations from memory that nothing else reads."""
    x = op.operands[0]
    return not isinstance(x.owner, Operation) and x.has_one_use()


def product(net: Rows, op: ArrayProductOp) -> None:
    """A product: of a memory where nothing else reads it, else of a stream of one row."""
    design = design_of(op, net.kernel.device.data)
    x, weight = op.operands[0], op.weight
    if is_alone(op):
        source = activations(net, design)
        net.bindings.append(Binding("activations", index_of(x), (name_of(source),), design=design))
    elif design.tiling.tokens.data != 1:
        raise NybbleError(
            f"a product of {design.tiling.tokens.data} tokens beside other operators",
            accepted="1 token, or the product alone",
        )
    else:
        source = net.rows(x)
    first = len(net.kernel.body.block.args)
    results = add_product(net, design, source)
    net.values[op.results[0]], net.designs[results] = results, design
    made = tuple(name_of(one) for one in net.kernel.body.block.args[first:])
    if op.bias is not None:
        net.bindings.append(Binding("bias", index_of(op.bias), made[-1:], design=design))
        made = made[:-1]
    net.bindings.append(Binding("weight", index_of(weight), made, design=design))


OPERATORS: dict[type[Operation], Callable[[Rows, Any], None]] = {
    ArrayProductOp: product,
    arith.AddfOp: add,
    RmsNormOp: norm,
    GluOp: gate,
    SoftmaxOp: softmax,
    RopeOp: rotate,
    AppendKVOp: append,
    AttentionOp: attention,
}
"""Operator -> what adds its processes to a network."""
