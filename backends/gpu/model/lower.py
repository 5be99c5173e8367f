"""Functions of a model at the operators stage, for one token, become launches.

One kernel for each operator but for these: a residual is added by the norm that reads the sum, and
the rotary embedding of keys, as keys and values that are stored, by the kernel that writes the
cache. Products take f16 and give f32; norms, gates and attention give the f16 that products take.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects import arith, func
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.image import Access, KernelImage
from nybble.backends.gpu.kernels.attention.decode import decode_image
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec
from nybble.backends.gpu.kernels.matmul.spec import StreamSpec
from nybble.backends.gpu.kernels.rows.machine import RowKernel
from nybble.backends.gpu.kernels.rows.norm import NormSpec, norm_kernel
from nybble.backends.gpu.kernels.rows.rope import RopeSpec, rope_kernel
from nybble.backends.gpu.kernels.rows.simple import (
    AddSpec,
    EmbedSpec,
    GluSpec,
    LargestSpec,
    add_kernel,
    embed_kernel,
    glu_kernel,
    largest_kernel,
)
from nybble.backends.gpu.model.plan import SCRATCH, STATE, WEIGHT, Buffer, Launch
from nybble.backends.gpu.products import Product, compile_spec, product_spec
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import EmbedOp, GluOp, LastRowOp, RmsNormOp, RopeOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp

POSITION, LENGTHS, LOGITS, NEXT = "position", "lengths", "logits", "next"
KEYS_A_BLOCK = 256
"""Keys that a block of threads should have at least, before heads are split among more blocks."""
CAUSAL = "causal"


@dataclass
class Lowering:
    """Collects what the functions of a model need.

    products: by the name of their image, what packs their weights. packed: weight buffer -> the
    product that reads it. tables: weight buffers of tables in f16. halves: buffers of f16.
    """

    arch: Arch
    images: dict[str, KernelImage] = field(default_factory=dict[str, KernelImage])
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    launches: list[Launch] = field(default_factory=list[Launch])
    products: dict[str, Product] = field(default_factory=dict[str, Product])
    packed: dict[str, str] = field(default_factory=dict[str, str])
    tables: set[str] = field(default_factory=set[str])
    halves: set[str] = field(default_factory=set[str])
    _kernels: dict[Any, str] = field(default_factory=dict[Any, str])

    def call(self, function: func.FuncOp, arguments: Sequence[str], where: str) -> list[str]:
        """The launches of a function on buffers; the buffers of its results.

        arguments: a buffer for each argument; where: begins the names of its own buffers. Raises
        NybbleError at an operation that has no kernel.
        """
        block = function.body.block
        held: dict[SSAValue, str] = dict(zip(block.args, arguments, strict=True))
        for number, op in enumerate(block.ops):
            if isinstance(op, func.ReturnOp):
                return [held[one] for one in op.operands]
            try:
                held |= self._lower(op, held, f"{where}.{number}")
            except NybbleError as error:
                error.location = error.location or location_of(op)
                raise
        raise AssertionError("a function ends with a return")

    def choose(self, vocabulary: int) -> None:
        """The launch that puts the likeliest token of LOGITS into NEXT."""
        self.buffer(NEXT, 4, STATE)
        spec = LargestSpec(1, vocabulary)
        self._row(spec, largest_kernel, [LOGITS, NEXT])

    def buffer(self, name: str, size: int, kind: str) -> str:
        """A buffer of at least so many bytes; its name."""
        known = self.buffers.get(name)
        self.buffers[name] = Buffer(name, max(size, known.bytes if known else 0), kind)
        return name

    def rename(self, old: str, new: str) -> None:
        """Give a buffer another name, everywhere."""
        found = self.buffers.pop(old)
        self.buffers[new] = Buffer(new, found.bytes, STATE)
        self.launches = [
            Launch(one.kernel, tuple(new if name == old else name for name in one.buffers))
            for one in self.launches
        ]

    # -- operators

    def _lower(self, op: Operation, held: Mapping[SSAValue, str], name: str) -> dict[SSAValue, str]:
        for kind, lower in _LOWERINGS.items():
            if isinstance(op, kind):
                return lower(self, op, held, name)
        raise NybbleError(
            f"'{op.name}' has no kernel on a GPU",
            accepted=", ".join(sorted(kind.name for kind in _LOWERINGS)),
        )

    def product(self, op: MatmulOp, held: Mapping[SSAValue, str], name: str) -> dict[SSAValue, str]:
        """x f16 times a weight, to f32."""
        if op.bias is not None:
            raise NybbleError("a product with a bias has no kernel on a GPU", accepted="no bias")
        weight = op.weight.type
        assert isinstance(weight, LowBitTensorType)
        rows, cols = weight.rows, weight.cols
        spec = weight.number_format.spec
        key = (spec, rows, cols)
        if key not in self._kernels:
            kernel = f"product_{len(self.products)}_{rows}x{cols}"
            made = self._product_spec(held[op.weight], key)
            self.products[kernel] = compile_spec(spec, made, kernel)
            self.images[kernel] = self.products[kernel].image
            self._kernels[key] = kernel
        kernel = self._kernels[key]
        image = self.images[kernel]
        x, result = self._half(held[op.operands[0]]), self._result(name, rows)
        w = self.buffer(f"{held[op.weight]}:packed", image.parameter("w").bytes, WEIGHT)
        self.packed[w] = kernel
        scratch = [
            self.buffer(f"{one}.products", image.parameter(one).bytes, SCRATCH)
            for one in ("sums", "counters")
        ]
        self.launches.append(Launch(kernel, (x, w, result, *scratch)))
        return {op.results[0]: result}

    def _product_spec(self, weight: str, key: tuple[str, int, int]) -> StreamSpec:
        """What the kernel is made for; NybbleError with the weight's name if there is none."""
        try:
            return product_spec(*key, 1, self.arch.name, "f16", "f32")
        except NybbleError as error:
            raise NybbleError(
                f"weight '{weight}': {error.message}",
                accepted=error.accepted or "another format for it, see --weights",
            ) from None

    def norm(self, op: RmsNormOp, held: Mapping[SSAValue, str], name: str) -> dict[SSAValue, str]:
        """Of a row or of heads; with the sum before it."""
        columns = _columns(op.input)
        (length,) = _shape(op.weight)
        half = all(isinstance(use.operation, MatmulOp) for use in op.result.uses)
        adds = op.input not in held
        spec = NormSpec(
            1, columns, length, op.eps.value.data, op.unit_offset is not None, adds,
            "f16" if half else "f32",
        )  # fmt: skip
        result = self._result(name, columns, half=half)
        if not adds:
            self._row(spec, norm_kernel, [held[op.input], held[op.weight], result])
            return {op.result: result}
        owner = op.input.owner
        assert isinstance(owner, arith.AddfOp)
        left, right = (held[one] for one in owner.operands)
        total = self._result(f"{name}.sum", columns)
        self._row(spec, norm_kernel, [left, held[op.weight], right, total, result])
        return {op.result: result, op.input: total}

    def add(self, op: arith.AddfOp, held: Mapping[SSAValue, str], name: str) -> dict[SSAValue, str]:
        """A sum; by the norm that reads it first, if one does."""
        uses = [use.operation for use in op.result.uses]
        first = op.next_op
        while first is not None and first not in uses:
            first = first.next_op
        if isinstance(first, RmsNormOp) and _shape(first.weight) == (_columns(op.result),):
            return {}
        columns = _columns(op.result)
        result = self._result(name, columns)
        self._row(AddSpec(1, columns), add_kernel, [*(held[one] for one in op.operands), result])
        return {op.result: result}

    def rope(self, op: RopeOp, held: Mapping[SSAValue, str], name: str) -> dict[SSAValue, str]:
        """Of queries; keys are turned where they are stored."""
        uses = list(op.result.uses)
        if len(uses) == 1 and isinstance(uses[0].operation, AppendKVOp):
            return {}
        columns = _columns(op.input)
        context, half = _shape(op.cos)
        spec = RopeSpec(columns // (2 * half), 2 * half, context)
        result = self._result(name, columns, half=True)
        tables = [held[op.cos], held[op.sin]]
        self._row(spec, rope_kernel, [held[op.input], POSITION, *tables, result])
        return {op.result: result}

    def append(
        self, op: AppendKVOp, held: Mapping[SSAValue, str], _name: str
    ) -> dict[SSAValue, str]:
        """Keys, turned by their position, or values."""
        heads, context, size = _shape(op.cache)
        cache = self._half(held[op.cache])
        if op.rows in held:
            spec = RopeSpec(heads, size, context, rotates=False, cached=True)
            self._row(spec, rope_kernel, [held[op.rows], POSITION, cache])
            return {op.result: cache}
        rope = op.rows.owner
        assert isinstance(rope, RopeOp)
        tables = [held[rope.cos], held[rope.sin]]
        spec = RopeSpec(heads, size, context, cached=True)
        self._row(spec, rope_kernel, [held[rope.input], POSITION, *tables, cache])
        return {op.result: cache}

    def attention(
        self, op: AttentionOp, held: Mapping[SSAValue, str], name: str
    ) -> dict[SSAValue, str]:
        """Of one query to all keys so far."""
        mask = str(op.mask.mask)
        if mask != CAUSAL or op.softcap is not None:
            what = "a soft cap" if op.softcap is not None else f"mask '{mask}'"
            raise NybbleError(f"attention with {what} has no kernel on a GPU", accepted=CAUSAL)
        heads, context, size = _shape(op.keys)
        columns = _columns(op.query)
        splits = max(1, min(context // KEYS_A_BLOCK, 2 * self.arch.board.sms // heads))
        spec = DecodeSpec(
            1, heads, columns // (heads * size), size, context, op.scale.value.data,
            softmax="unified" if op.softmax and op.softmax.data == "unified" else "online",
            splits=splits,
        )  # fmt: skip
        if spec not in self._kernels:
            image = decode_image(spec, self.arch)
            self._kernels[spec] = image.name
            self.images[image.name] = image
        image = self.images[self._kernels[spec]]
        result = self._result(name, columns, half=True)
        bound = {
            "q": self._half(held[op.query]), "k": held[op.keys], "v": held[op.values],
            "lengths": LENGTHS, "out": result,
        }  # fmt: skip
        buffers = tuple(
            bound.get(one.name) or self.buffer(f"{one.name}.attention", one.bytes, SCRATCH)
            for one in image.parameters
        )
        self.launches.append(Launch(image.name, buffers))
        return {op.result: result}

    def glu(self, op: GluOp, held: Mapping[SSAValue, str], name: str) -> dict[SSAValue, str]:
        """The gate, for the product that follows."""
        columns = _columns(op.gate)
        result = self._result(name, columns, half=True)
        spec = GluSpec(1, columns, op.activation.data)
        self._row(spec, glu_kernel, [held[op.gate], held[op.up], result])
        return {op.result: result}

    def embed(self, op: EmbedOp, held: Mapping[SSAValue, str], name: str) -> dict[SSAValue, str]:
        """A row of a table that is kept in f16."""
        kept = op.table.type
        assert isinstance(kept, LowBitTensorType)
        result = self._result(name, kept.cols)
        spec = EmbedSpec(1, kept.cols, kept.rows, op.scale.value.data)
        table = f"{held[op.table]}:table"
        self.tables.add(table)
        self._row(spec, embed_kernel, [held[op.ids], table, result])
        return {op.result: result}

    def last_row(
        self, op: LastRowOp, held: Mapping[SSAValue, str], _name: str
    ) -> dict[SSAValue, str]:
        """Of one row it is that."""
        return {op.result: held[op.input]}

    # -- buffers and kernels

    def _result(self, name: str, columns: int, half: bool = False) -> str:
        if half:
            self.halves.add(name)
        return self.buffer(name, columns * (2 if half else 4), SCRATCH)

    def _half(self, name: str) -> str:
        if name not in self.halves:
            raise NybbleError(f"'{name}' is f32 where a kernel of a GPU reads f16")
        return name

    def _row(self, spec: Any, build: Callable[[Any], RowKernel], buffers: Sequence[str]) -> None:
        if spec.name not in self.images:
            self.images[spec.name] = build(spec).image(self.arch)
        for one, name in zip(spec.parameters, buffers, strict=True):
            if name not in self.buffers and one.access is Access.READ:
                self.buffer(name, one.bytes, WEIGHT)
        self.launches.append(Launch(spec.name, tuple(buffers)))


def _shape(value: SSAValue) -> tuple[int, ...]:
    assert isinstance(value.type, TensorType)
    return value.type.get_shape()


def _columns(value: SSAValue) -> int:
    return _shape(value)[1]


_LOWERINGS: Mapping[type[Operation], Callable[..., dict[SSAValue, str]]] = {
    MatmulOp: Lowering.product, RmsNormOp: Lowering.norm, arith.AddfOp: Lowering.add,
    RopeOp: Lowering.rope, AppendKVOp: Lowering.append, AttentionOp: Lowering.attention,
    GluOp: Lowering.glu, EmbedOp: Lowering.embed, LastRowOp: Lowering.last_row,
}  # fmt: skip
