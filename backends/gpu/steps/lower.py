"""Functions at the scheduled stage become steps."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from xdsl.dialects import arith, func
from xdsl.ir import Operation

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.dataflows import ProductSpec
from nybble.backends.gpu.kernels.matmul.lookup import LookupSpec
from nybble.backends.gpu.kernels.matmul.spec import Quantized
from nybble.backends.gpu.steps.attention import (
    attention_steps,
    finish_step,
    merge_step,
    partial_steps,
)
from nybble.backends.gpu.steps.rotation import rotation_steps
from nybble.backends.gpu.steps.rows import (
    add_step,
    embed_step,
    glu_step,
    last_row_step,
    norm_step,
    quantize_step,
    quantized_slots,
    tables_step,
)
from nybble.backends.gpu.steps.step import PACKED, Slot, Step
from nybble.backends.gpu.steps.values import Storage, uses_of
from nybble.backends.gpu.steps.works import Work, located, works_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.fused.ops import EmbedOp, GluOp, LastRowOp, RmsNormOp
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.mpgemm.lut import LutPrecomputeOp
from nybble.dialects.mpgemm.ops import ProductOp, QuantizedProductOp
from nybble.dialects.sparse_attn.ops import AttentionOp, FinishOp, MergeOp, PartialOp
from nybble.passes.targets import Product

ACCEPTED = (
    "products of a number of tokens that is known, without a bias, norms, sums, gates, rotations "
    "with their appends, attention that is causal or to listed blocks, parts of it, embeddings"
)


@dataclass
class FunctionSteps:
    """Lowers one function. storage: how values are kept between its kernels."""

    function: func.FuncOp
    arch: Arch
    storage: Storage
    _made: dict[Work, tuple[Product, ProductSpec]] = field(
        default_factory=dict[Work, tuple[Product, ProductSpec]]
    )
    _read: dict[ProductOp, ProductSpec] = field(default_factory=dict[ProductOp, ProductSpec])

    def lower(self) -> list[Step]:
        """All steps, in order; raises NybbleError at an operation that has no kernel."""
        works = list(works_of(self.function))
        for work in works:
            if work.is_product:
                try:
                    made = self._made[work] = work.kernel(self.arch.name, self.storage)
                except NybbleError as error:
                    raise located(error, work.op) from None
                self._read |= dict.fromkeys(work.products, made[1])
        return [step for work in works for step in self._steps(work)]

    def _steps(self, work: Work) -> list[Step]:
        try:
            return list(self._lower(work))
        except NybbleError as error:
            raise located(error, work.op) from None

    def _lower(self, work: Work) -> Iterable[Step]:
        op, storage = work.op, self.storage
        if work.is_product:
            return [self._product(work)]
        match op:
            case QuantizeOp():
                return self._quantizations(work)
            case LastRowOp():
                return last_row_step(op, storage)
            case AttentionOp():
                return attention_steps(op, storage, self.arch)
            case PartialOp():
                return partial_steps(op, storage, self.arch)
            case KernelOp():
                return rotation_steps(op, storage)
            case _:
                return [self._row(op)]

    def _row(self, op: Operation) -> Step:
        match op:
            case RmsNormOp():
                return norm_step(op, self.storage)
            case arith.AddfOp():
                return add_step(op, self.storage)
            case GluOp():
                return glu_step(op, self.storage)
            case EmbedOp():
                return embed_step(op, self.storage)
            case MergeOp():
                return merge_step(op, self.storage)
            case FinishOp():
                return finish_step(op, self.storage)
            case LutPrecomputeOp():
                return tables_step(op, self.storage)
            case _:
                raise NybbleError(f"'{op.name}' has no kernel on a GPU", accepted=ACCEPTED)

    def _product(self, work: Work) -> Step:
        """Products, with what is done to them."""
        product, spec = self._made[work]
        activation = work.products[0].operands[0]
        slots: Mapping[str, Slot] = {"x": Slot((activation,))}
        if isinstance(spec, LookupSpec):
            slots = {"tables": Slot((activation,))}
        elif spec.quantized is not None:
            slots = quantized_slots(activation, spec.quantized)
        else:
            self.storage.require(activation, spec.activations)
        weights = Slot(tuple(one.weight for one in work.products), PACKED)
        found = {**slots, "w": weights, "y": Slot((work.op.results[0],))}
        if work.epilogue.residual:
            (added,) = (v for v in work.op.operands if v is not work.products[0].result)
            self.storage.require(added, spec.output)
            found["residual"] = Slot((added,))
        return Step(spec, found, product.description.spec)

    def _quantizations(self, work: Work) -> Iterator[Step]:
        """Once in each order in which some product reads it."""
        orders = dict.fromkeys(self._orders(work))
        if not orders:
            raise NybbleError(
                "a quantization that no product of the function reads has no kernel on a GPU"
            )
        for wanted in orders:
            yield quantize_step(work, wanted, self.storage)

    def _orders(self, work: Work) -> Iterator[Quantized]:
        for use in uses_of(work.op.results[0]):
            reader = use.operation
            if isinstance(reader, QuantizedProductOp) and reader in self._read:
                spec = self._read[reader]
                assert not isinstance(spec, LookupSpec)
                assert spec.quantized is not None
                yield spec.quantized


def steps_of(function: func.FuncOp, arch: Arch, storage: Storage) -> list[Step]:
    """The launches of a function; raises NybbleError at an operation that has no kernel."""
    return FunctionSteps(function, arch, storage).lower()
