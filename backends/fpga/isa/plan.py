"""Where everything of a model lies in the memory of each region.

A region has a slice of the rows of each matrix, of the heads, and of the tokens' values between
matrices. All regions have the same map, so one stream serves them all.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from nybble.backends.fpga.isa.instructions import BLOCK, LINE
from nybble.backends.fpga.isa.machine import Machine
from nybble.backends.fpga.isa.matrix import Matrix, matrix_of, up
from nybble.costmodel.targets.target import ResourceError
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import RmsNormOp, RopeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.shapes import tensor_shape
from nybble.dialects.sparse_attn.ops import AttentionOp

VALUE_BYTES = 2
"""Values between matrices are f16."""
PARAM_BYTES = 4
"""Parameters of norms and rotations are f32."""
SCALES = 4
"""f32 in the first line of parameters: of keys' codes, of products with keys, of values' codes, and
what a norm adds to the mean of squares."""


@dataclass(frozen=True)
class Sizes:
    """A model. hidden, heads and so on: true sizes; head: elements of one. scale: of attention."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    scale: float
    eps: float


@dataclass(frozen=True, eq=False)
class Plan:  # equal to itself only
    """The map. Addresses are bytes of a region; layer and cache ones count from a layer's start.

    matrices, norms: argument -> what it is and its address; matrices of the head and norms are in
    `shared` space.
    """

    machine: Machine
    sizes: Sizes
    context: int
    layer: func.FuncOp
    head: func.FuncOp
    matrices: Mapping[SSAValue, tuple[Matrix, int]] = field(hash=False)
    norms: Mapping[SSAValue, int] = field(hash=False)
    params_bytes: int
    layer_bytes: int
    values_at: int
    cache_bytes: int
    stream_at: int
    tables_at: int
    last_params_at: int
    logits_at: int
    head_at: int
    layers_at: int
    caches_at: int

    @property
    def heads(self) -> int:
        """Key and value heads of a region, the last of them padded."""
        return -(-self.sizes.kv_heads // self.machine.regions)

    @property
    def slice(self) -> int:
        """Elements of a token's hidden values that a region has."""
        return up(-(-self.sizes.hidden // self.machine.regions), BLOCK)

    @property
    def bytes(self) -> int:
        """Of a region, without the stream of instructions."""
        return self.caches_at + self.sizes.layers * self.cache_bytes

    @property
    def matrix_bytes(self) -> int:
        """Of all regions: what one token reads of weights."""
        layer = sum(one.bytes for arg, (one, _) in self.matrices.items() if self.in_layer(arg))
        head = sum(one.bytes for arg, (one, _) in self.matrices.items() if not self.in_layer(arg))
        return self.machine.regions * (self.sizes.layers * layer + head)

    def registers(self) -> dict[str, int]:
        """What a host sets once, beside `position` (of the first new token) and `last` (the index
        of the last one in its tile) for each run."""
        return {
            "layer_base": self.layers_at,
            "layer_bytes": self.layer_bytes,
            "cache_base": self.caches_at,
            "cache_bytes": self.cache_bytes,
            "row_bytes": self.sizes.head * PARAM_BYTES,
            "head": self.sizes.head,
            "hidden": self.sizes.hidden,
        }

    def in_layer(self, argument: SSAValue) -> bool:
        """Whether a parameter is of the layers."""
        return argument in self.layer.body.block.args


def check_fits(plan: Plan, instruction_bytes: int) -> None:
    """Raise ResourceError where memory cannot hold the model and its instructions."""
    main = plan.machine.target.main
    wanted = plan.machine.regions * plan.bytes + instruction_bytes
    if wanted > main.size.value:
        over = wanted - int(main.size.value)
        raise ResourceError(
            f"{wanted / 1e9:.2f} GB do not fit '{main.name}' of {plan.machine.target.name}, "
            f"{over / 1e9:.2f} GB too many",
            accepted=f"up to {main.size.value / 1e9:.2f} GB: fewer bits, a shorter context, "
            "or a smaller model",
        )


def make_plan(module: ModuleOp, layers: Sequence[str], context: int, machine: Machine) -> Plan:
    """The map of a model at the operators stage.

    layers: the function of each decoder layer, all the same one. context: tokens that the caches
    hold. Raises NybbleError for what is not of the llama class, FormatRefused for weights.
    """
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}
    if len(Counter(layers)) != 1:
        raise NybbleError(
            f"the layers are of {len(Counter(layers))} kinds", accepted="layers that are all alike"
        )
    layer, head = functions[layers[0]], functions["head"]
    sizes = _sizes(layer, len(layers))
    context = up(context, BLOCK)
    return _placed(machine, sizes, context, layer, head)


def _sizes(layer: func.FuncOp, layers: int) -> Sizes:
    attentions = [op for op in layer.walk() if isinstance(op, AttentionOp)]
    norms = [op for op in layer.walk() if isinstance(op, RmsNormOp)]
    if len(attentions) != 1 or not norms:
        raise NybbleError(
            f"a layer with {len(attentions)} attentions and {len(norms)} norms",
            accepted="one attention and RMS norms, as models of the llama class have",
        )
    one = attentions[0]
    kv_heads, _, head = tensor_shape(one.keys)
    heads = tensor_shape(one.query)[1] // head
    if head % BLOCK:
        raise NybbleError(f"heads of {head}", accepted=f"multiples of {BLOCK}")
    hidden = tensor_shape(layer.body.block.args[0])[1]
    return Sizes(
        layers, hidden, heads, kv_heads, head, one.scale.value.data, norms[0].eps.value.data
    )


def _placed(
    machine: Machine, sizes: Sizes, context: int, layer: func.FuncOp, head: func.FuncOp
) -> Plan:
    piece = up(-(-sizes.hidden // machine.regions), BLOCK)
    norms, params = _norms(layer, LINE, machine.regions * piece)
    last_norms, last_params = _norms(head, LINE, machine.regions * piece)
    found, layer_bytes = _matrices(layer, params, machine, sizes)
    heads = -(-sizes.kv_heads // machine.regions)
    one_cache = context * heads * sizes.head
    stream = 0
    tables = stream + context * piece * VALUE_BYTES
    last = tables + context * sizes.head * PARAM_BYTES
    logits = last + last_params
    vocabulary = max(tensor_shape(op.result)[1] for op in head.walk() if isinstance(op, MatmulOp))
    head_at = up(logits + up(-(-vocabulary // machine.regions), BLOCK) * VALUE_BYTES, LINE)
    last_found, layers_at = _matrices(head, head_at, machine, sizes)
    return Plan(
        machine, sizes, context, layer, head, {**found, **last_found}, {**norms, **last_norms},
        params, layer_bytes, one_cache, 2 * one_cache, stream, tables, last, logits, head_at,
        layers_at, layers_at + sizes.layers * layer_bytes,
    )  # fmt: skip


def _norms(function: func.FuncOp, at: int, width: int) -> tuple[dict[SSAValue, int], int]:
    """Weight of a norm -> its byte in the parameters, which have `at` bytes before it; and all."""
    found: dict[SSAValue, int] = {}
    for op in function.walk():
        if isinstance(op, RmsNormOp):
            found[op.weight] = at
            at += width * PARAM_BYTES
    return found, at


def _matrices(
    function: func.FuncOp, at: int, machine: Machine, sizes: Sizes
) -> tuple[dict[SSAValue, tuple[Matrix, int]], int]:
    """Weight of a product -> its tiles and their first address; and the end of them all."""
    found: dict[SSAValue, tuple[Matrix, int]] = {}
    for op in function.walk():
        if not isinstance(op, MatmulOp):
            continue
        type_ = op.weight.type
        assert isinstance(type_, LowBitTensorType)
        rows, columns = type_.rows, type_.cols
        name = op.weight.name_hint or f"argument {len(found)}"
        padded = _padded(op.activation, machine, sizes, columns)
        one = matrix_of(name, type_.number_format, rows, padded, machine)
        if _feeds_heads(op.result):
            one = _by_heads(one, op, machine, sizes)
        found[op.weight] = (one, at)
        at += one.bytes
    return found, at


def _padded(value: SSAValue, machine: Machine, sizes: Sizes, columns: int) -> int:
    """Columns of a matrix as activations lie: the slices of all regions one after another."""
    if isinstance(value.owner, AttentionOp):
        heads = -(-sizes.kv_heads // machine.regions)
        return machine.regions * heads * (sizes.heads // sizes.kv_heads) * sizes.head
    return machine.regions * up(-(-columns // machine.regions), BLOCK)


def _feeds_heads(value: SSAValue) -> bool:
    """Whether rows of a product belong to heads: the slices are then of whole heads."""
    users = [use.operation for use in value.uses]
    return any(
        isinstance(op, RopeOp | AttentionOp) or op.name == "sparse_attn.append_kv" for op in users
    )


def _by_heads(one: Matrix, op: MatmulOp, machine: Machine, sizes: Sizes) -> Matrix:
    heads = -(-sizes.kv_heads // machine.regions)
    each = heads * sizes.head * (one.rows // (sizes.kv_heads * sizes.head))
    return replace(one, slice=each)
