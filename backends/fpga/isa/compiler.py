"""A model at the operators stage to a stream: one lowering for each operation.

Every region computes its slice of the rows of a product, or its heads; what the next product needs
whole is shared among the regions as values, and turned into codes of 8 bits by each of them.
Decoding keeps a token's values on chip from the first layer to the last (FlightLLM).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from xdsl.dialects import arith, func
from xdsl.ir import Operation, SSAValue

from nybble.backends.fpga.isa.emitter import Access, Counter, Emitter
from nybble.backends.fpga.isa.encoding import Instruction
from nybble.backends.fpga.isa.instructions import (
    BLOCK,
    LINE,
    SOURCES,
)
from nybble.backends.fpga.isa.plan import PARAM_BYTES, VALUE_BYTES, Plan
from nybble.backends.fpga.isa.writer import Place, Step, Writer
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import GluOp, RmsNormOp, RopeOp
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp


class UnmappedError(NybbleError):
    """An operation that the accelerator has no instructions for."""


def compile_step(plan: Plan, step: Step) -> tuple[Instruction, ...]:
    """The stream of a step; UnmappedError, ResourceError."""
    emitter = Emitter()
    _Lowering(plan, step, emitter).run()
    return emitter.instructions()


def spread_bytes(plan: Plan, step: Step) -> int:
    """Bytes that the step's stream would have if nothing was shared: an instruction for each
    channel, and those of a layer once for each layer. Counted, not built."""
    counter = Counter()
    one_by_one = replace(step, merged=False, shared=True)
    _Lowering(plan, one_by_one, counter).run()
    return counter.rest + plan.sizes.layers * counter.body


class _Lowering(Writer):
    def __init__(self, plan: Plan, step: Step, emitter: Emitter):
        super().__init__(plan, step, emitter)
        self.placed: dict[SSAValue, Place] = {}
        self.coded: dict[SSAValue, Place] = {}
        self.left: dict[SSAValue, int] = {}
        self.cached = (0, 0)

    def run(self) -> None:
        plan, step = self.plan, self.step
        if step.tiles == 1:
            self._load_tile(0)
        for layer in range(1 if step.shared else plan.sizes.layers):
            if step.shared:
                self.control("loop", plan.sizes.layers)
            else:
                self.control("layer", layer)
            self.load("params", "layer", 0, plan.params_bytes, 0)
            for tile in range(step.tiles):
                self._layer(tile)
        if step.shared:
            self.control("end", 0)
        self._end()
        self.control("halt", 0)

    def _layer(self, tile: int) -> None:
        self.first = tile * self.step.tokens
        if self.step.tiles > 1:
            self._load_tile(tile)
        result = self._function(self.plan.layer, self.hidden)
        if result != self.hidden:
            raise UnmappedError(
                "a layer whose result is not its input with something added",
                accepted="residual layers, as models of the llama class have",
            )
        if self.step.tiles > 1:
            self._store_tile(tile)
        self._forget()

    def _load_tile(self, tile: int) -> None:
        plan, step = self.plan, self.step
        place = tile * step.tokens * plan.slice * VALUE_BYTES
        size = step.tokens * plan.slice * VALUE_BYTES
        self.load("values", "shared", plan.stream_at + place, size, self.hidden.at)
        row = plan.sizes.head * PARAM_BYTES
        at = plan.tables_at + tile * step.tokens * row
        self.load("params", "position", at, step.tokens * row, self.table)

    def _store_tile(self, tile: int) -> None:
        at = self.plan.stream_at + tile * self.step.tokens * self.plan.slice * VALUE_BYTES
        self.store("memory", at // LINE, self.hidden)

    def _end(self) -> None:
        """The last norm and the logits of the last token."""
        plan, step = self.plan, self.step
        hidden = self.hidden
        if not step.decodes:
            if step.tiles == 1:
                self._store_tile(0)
            hidden = self._last_token()
        self.load("params", "shared", plan.last_params_at, plan.logits_at - plan.last_params_at, 0)
        result = self._function(plan.head, hidden)
        assert result is not None
        self.store("memory", plan.logits_at // LINE, result)

    def _last_token(self) -> Place:
        """One token of the last tile, as the first of a stream of one."""
        plan, step = self.plan, self.step
        tile = step.tokens * plan.slice * VALUE_BYTES
        at = plan.stream_at + (step.tiles - 1) * tile
        self._forget()
        self.tokens, self.product = 1, "mv"
        place = Place(self.take(plan.slice), plan.slice // BLOCK)
        block = BLOCK * VALUE_BYTES
        self.load("values", "last", at, block, place.at, place.blocks, step.tokens * block)
        return place

    def _forget(self) -> None:
        self.placed.clear()
        self.coded.clear()
        self.left.clear()

    # functions and their operations

    def _function(self, function: func.FuncOp, hidden: Place) -> Place | None:
        block = function.body.block
        self.placed[block.args[0]] = hidden
        for value in (*block.args, *(result for op in block.ops for result in op.results)):
            self.left[value] = len([*value.uses])
        for op in block.ops:
            if isinstance(op, func.ReturnOp):
                return self.placed.get(op.operands[0])
            handler = _HANDLERS.get(type(op))
            if handler is None:
                accepted = ", ".join(sorted(known.name for known in _HANDLERS))
                raise UnmappedError(f"'{op.name}' on the accelerator", accepted=accepted)
            handler(self, op)
            for operand in op.operands:
                self._used(operand)
        return None

    def _used(self, value: SSAValue) -> None:
        """Give back what nobody reads any more."""
        self.left[value] -= 1
        if self.left[value]:
            return
        coded, placed = self.coded.pop(value, None), self.placed.pop(value, None)
        if coded is not None:
            self.codes.free(coded.at)
        if placed is None or placed == self.hidden or placed in self.placed.values():
            return
        self.values.free(placed.at)

    def norm(self, op: RmsNormOp) -> None:
        """Share, then norm and code in one go: the largest is known after the first pass."""
        whole = self.shared(self.placed[op.input])
        codes = self.codes_for(whole.blocks)
        line = self.plan.norms[op.weight] // LINE
        self.misc("rmsnorm", whole, codes, right=line, coded=True, params=True)
        self.values.free(whole.at)
        self.coded[op.result] = codes

    def matmul(self, op: MatmulOp) -> None:
        """A product for each tile of the weight, each behind the load of the tile."""
        if op.bias is not None:
            raise UnmappedError("a bias of a product", accepted="products without")
        codes = self.coded.get(op.activation) or self._code(op.activation)
        matrix, base = self.plan.matrices[op.weight]
        space = "layer" if self.plan.in_layer(op.weight) else "shared"
        result = Place(self.take(matrix.slice), matrix.slice // BLOCK)
        size = result.blocks * self.tokens
        whole = [Access("values", result.at, result.at + size)]
        ends = (matrix.tiles[0], matrix.tiles[-1])
        for tile in matrix.tiles:
            lines = tile.bytes // LINE
            at = self.ring.take(lines)
            self.load("weights", space, base + tile.address, tile.bytes, at)
            self.emit_product(
                codes.at + tile.column // BLOCK * self.tokens,
                result.at + tile.row // BLOCK * self.tokens,
                (tile.rows, tile.columns),
                (at, lines),
                whole if tile in ends else [],  # one unit writes it all, in order
                bits=matrix.bits,
                keep=matrix.keep,
                first=int(tile.column == 0),
                last=int(tile.column + tile.columns >= matrix.columns),
                group=matrix.group // BLOCK,
            )
        self.placed[op.result] = result

    def rope(self, op: RopeOp) -> None:
        """In place, by rows of the table that were loaded with the tile."""
        place = self.placed[op.input]
        self.misc("rope", place, place, right=self.table, params=True)
        self.placed[op.result] = place

    def append(self, op: AppendKVOp) -> None:
        """Rows of new tokens as codes to the caches."""
        attention = next(
            use.operation for use in op.result.uses if isinstance(use.operation, AttentionOp)
        )
        keys = attention.keys is op.result
        at = self._cache(keys) + self.first * self.plan.heads * self.plan.sizes.head
        self.store("keys" if keys else "values", at // LINE, self.placed[op.rows], "cache")

    def _cache(self, keys: bool) -> int:
        return 0 if keys else self.plan.values_at

    def attention(self, op: AttentionOp) -> None:
        """Head by head: scores, softmax into codes, values; scores run one head ahead."""
        if str(op.mask.mask) != "causal" or op.softcap is not None:
            raise UnmappedError(f"attention with mask '{op.mask.mask}'", accepted="causal")
        sizes, plan = self.plan.sizes, self.plan
        query = self.code_slice(op.query)
        times = sizes.heads // sizes.kv_heads
        blocks = sizes.head // BLOCK
        result = Place(self.take(plan.heads * times * sizes.head), plan.heads * times * blocks)
        context = self.step.context if self.step.decodes else self.first + self.tokens
        work = [_Scores(self, context) for _ in range(2)]
        late: Callable[[], None] = _nothing
        keys = (0, 0)
        for head in range(plan.heads * times):
            if head % times == 0:
                keys = self._load_cache(True, head // times, context)
            area = work[head % 2]
            self.emit_product(
                query.at + head * blocks * self.tokens, area.scores.at,
                (context, sizes.head), keys, [area.access], **_DENSE, source=SOURCES.index("keys"),
            )  # fmt: skip
            self.misc("softmax", area.scores, area.codes, right=self.first, coded=True)
            late()
            place = result.at + head * blocks * self.tokens
            late = partial(self._weighted, area, head, times, place, context)
        late()
        for area in work:
            self.values.free(area.scores.at)
            self.codes.free(area.codes.at)
        self.codes.free(query.at)
        self.placed[op.result] = result

    def _weighted(self, area: "_Scores", head: int, times: int, place: int, context: int) -> None:
        if head % times == 0:
            self.cached = self._load_cache(False, head // times, context)
        rows = self.plan.sizes.head
        self.emit_product(
            area.codes.at, place, (rows, context), self.cached,
            [Access("values", place, place + rows // BLOCK * self.tokens)], **_DENSE,
            source=SOURCES.index("values"),
        )  # fmt: skip

    def _load_cache(self, keys: bool, head: int, context: int) -> tuple[int, int]:
        """Keys [context, head] or values [context / 16, head, 16] of one head, in the weights."""
        size, all_heads = self.plan.sizes.head, self.plan.heads * self.plan.sizes.head
        run = 1 if keys else BLOCK
        lines = context * size // LINE
        at = self.ring.take(lines)
        start = self._cache(keys) + head * size * run
        self.load("weights", "cache", start, size * run, at, context // run, all_heads * run)
        return at, lines

    def add(self, op: arith.AddfOp) -> None:
        """In place of an operand that nobody else reads."""
        left, right = op.lhs, op.rhs
        if self.left[left] > 1:
            left, right = right, left
        place = self.placed[left]
        if self.left[left] > 1:
            place = Place(self.take(place.blocks * BLOCK), place.blocks)
        self.misc("add", self.placed[left], place, right=self.placed[right].at, pair=True)
        self.placed[op.result] = place

    def glu(self, op: GluOp) -> None:
        """The gate's function, then a multiplication, both in place."""
        if op.activation.data != "silu":
            raise UnmappedError(f"gates of '{op.activation.data}'", accepted="silu")
        gate, up = self.placed[op.gate], self.placed[op.up]
        self.misc("silu", gate, gate)
        self.misc("mul", gate, gate, right=up.at, pair=True)
        self.placed[op.result] = gate

    def _code(self, value: SSAValue) -> Place:
        """Codes of the whole of a value that regions have slices of."""
        whole = self.shared(self.placed[value])
        codes = self.codes_for(whole.blocks)
        self.misc("quantize", whole, codes, coded=True)
        self.values.free(whole.at)
        self.coded[value] = codes
        return codes

    def code_slice(self, value: SSAValue) -> Place:
        place = self.placed[value]
        codes = self.codes_for(place.blocks)
        self.misc("quantize", place, codes, coded=True)
        return codes


class _Scores:
    """Room for the scores of a head and the codes of their softmax."""

    def __init__(self, lowering: _Lowering, context: int):
        self.scores = Place(lowering.take(context), context // BLOCK)
        self.codes = lowering.codes_for(context // BLOCK)
        size = self.scores.blocks * lowering.tokens
        self.access = Access("values", self.scores.at, self.scores.at + size)


def _nothing() -> None:
    """Before the first head there is nothing to end."""


_DENSE = {"bits": 8, "keep": BLOCK, "first": 1, "last": 1, "group": 0}
_HANDLERS: dict[type[Operation], Callable[[_Lowering, Any], None]] = {
    RmsNormOp: _Lowering.norm,
    MatmulOp: _Lowering.matmul,
    RopeOp: _Lowering.rope,
    AppendKVOp: _Lowering.append,
    AttentionOp: _Lowering.attention,
    arith.AddfOp: _Lowering.add,
    GluOp: _Lowering.glu,
}
