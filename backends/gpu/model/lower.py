"""Functions of a model at the scheduled stage become launches of kernels on named buffers.

What the launches are, `steps` says, for models as for files; here their values get buffers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.dialects import func
from xdsl.ir import SSAValue

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.image import KernelImage, Parameter
from nybble.backends.gpu.kernels.matmul.lookup import LookupSpec
from nybble.backends.gpu.kernels.matmul.spec import StreamSpec
from nybble.backends.gpu.kernels.rows.simple import LargestSpec
from nybble.backends.gpu.model.plan import SCRATCH, STATE, WEIGHT, Buffer, Launch
from nybble.backends.gpu.products import Product
from nybble.backends.gpu.steps.lower import steps_of
from nybble.backends.gpu.steps.step import PACKED, TABLE, LookupProduct, Slot, Spec, Step
from nybble.backends.gpu.steps.values import FULL, Storage, holder
from nybble.dialects.sparse_attn.cache_type import CacheType

IDS, POSITION, LOGITS, NEXT = "ids", "position", "logits", "next"


@dataclass(frozen=True)
class PackedWeight:
    """Bytes that products read. kernel: one of these products. sources: of the weight, or of that
    of a gate and of the other factor."""

    kernel: str
    sources: tuple[str, ...]


@dataclass
class Lowering:
    """Collects what the functions of a model need; kernels are compiled when all of it is known.

    launches: those of the program that is collected now. packed: buffer -> what it is packed of.
    tables: buffer of a table in f16 -> the weight it is of.
    """

    arch: Arch
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    launches: list[Launch] = field(default_factory=list[Launch])
    packed: dict[str, PackedWeight] = field(default_factory=dict[str, PackedWeight])
    tables: dict[str, str] = field(default_factory=dict[str, str])
    _kernels: dict[tuple[Spec, str], str] = field(default_factory=dict[tuple[Spec, str], str])
    _steps: dict[str, Step] = field(default_factory=dict[str, Step])

    def call(
        self,
        function: func.FuncOp,
        arguments: Sequence[str],
        where: str,
        results: Sequence[str] = (),
    ) -> list[str]:
        """Add the launches of a function on buffers; the buffers of its results.

        arguments: a buffer for each argument; where: begins the names of its own buffers; results:
        buffers that its results shall be in. Raises NybbleError at an operation without a kernel.
        """
        block = function.body.block
        held: dict[SSAValue, str] = dict(zip(block.args, arguments, strict=True))
        end = block.last_op
        assert isinstance(end, func.ReturnOp)
        held |= dict(zip(map(holder, end.operands), results, strict=False))
        for step in steps_of(function, self.arch, Storage(FULL)):
            self._launch(step, held, where)
        return [held[holder(one)] for one in end.operands]

    def choose(self, vocabulary: int) -> None:
        """The launch that puts the likeliest token of LOGITS into NEXT."""
        step = Step(LargestSpec(1, vocabulary))
        for one, name in zip(step.spec.parameters, (LOGITS, NEXT), strict=True):
            self.buffer(name, one.bytes, STATE)
        self.launches.append(Launch(self._kernel(step), (LOGITS, NEXT)))

    def program(self) -> tuple[Launch, ...]:
        """The launches since the last call, as a program."""
        found, self.launches = tuple(self.launches), []
        return found

    def buffer(self, name: str, size: int, kind: str) -> str:
        """A buffer of at least so many bytes, of that kind if it is new; its name."""
        known = self.buffers.get(name, Buffer(name, 0, kind))
        self.buffers[name] = Buffer(name, max(size, known.bytes), known.kind)
        return name

    def compile(self) -> tuple[dict[str, KernelImage], dict[str, Product | LookupProduct]]:
        """The images by name, and of those that are products what packs their weights."""
        made = {name: step.compile(self.arch, name) for name, step in self._steps.items()}
        products = {
            name: one for name, one in made.items() if isinstance(one, Product | LookupProduct)
        }
        return {name: one.image for name, one in made.items()}, products

    def _launch(self, step: Step, held: dict[SSAValue, str], where: str) -> None:
        kernel = self._kernel(step)
        buffers = [self._bound(step, one, held, where) for one in step.spec.parameters]
        self.launches.append(Launch(kernel, tuple(buffers)))

    def _kernel(self, step: Step) -> str:
        """The name of a step's kernel, which equal ones share."""
        key = (step.spec, step.format)
        if key not in self._kernels:
            taken = sum(one.name == step.name for one in self._steps.values())
            self._kernels[key] = step.name + (f"_{taken}" if taken else "")
            self._steps[self._kernels[key]] = step
        return self._kernels[key]

    def _bound(self, step: Step, one: Parameter, held: dict[SSAValue, str], where: str) -> str:
        """The buffer of a parameter."""
        slot = step.slots.get(one.name)
        if slot is None:
            return self.buffer(f"{one.name}.scratch", one.bytes, SCRATCH)
        if not slot.values:
            return self.buffer(slot.form, one.bytes, STATE)
        if slot.form == PACKED:
            return self._weights(step, slot, held, one.bytes)
        value = holder(slot.values[0])
        if slot.form == TABLE:
            name = f"{held[value]}:{TABLE}"
            self.tables[name] = held[value]
            return self.buffer(name, one.bytes, WEIGHT)
        return self._value(value, slot.form, one.bytes, held, where)

    def _value(
        self, value: SSAValue, form: str, size: int, held: dict[SSAValue, str], where: str
    ) -> str:
        """The buffer of a value in a form; arguments that have none are weights."""
        is_argument = not form and value in held
        if not is_argument:
            held.setdefault(value, f"{where}.{len(held)}")
        name = held[value] + (f".{form}" if form else "")
        other = STATE if isinstance(value.type, CacheType) else SCRATCH
        return self.buffer(name, size, WEIGHT if is_argument else other)

    def _weights(self, step: Step, slot: Slot, held: Mapping[SSAValue, str], size: int) -> str:
        """The buffer of weights as a product reads them; products of one layout share it."""
        sources = tuple(held[holder(one)] for one in slot.values)
        kernel, stem = self._kernel(step), f"{'+'.join(sources)}:{PACKED}"
        for name, known in self.packed.items():
            if known.sources == sources and self._is_packed_alike(known.kernel, step):
                return name
        count = sum(known.sources == sources for known in self.packed.values())
        name = stem + (f".{count}" if count else "")
        self.packed[name] = PackedWeight(kernel, sources)
        return self.buffer(name, size, WEIGHT)

    def _is_packed_alike(self, kernel: str, step: Step) -> bool:
        """Whether a product reads weights as the product of a kernel does."""
        first, second = self._steps[kernel].spec, step.spec
        if isinstance(first, LookupSpec) or isinstance(second, LookupSpec):
            return type(first) is type(second)
        assert isinstance(first, StreamSpec)
        assert isinstance(second, StreamSpec)
        alike = first.layout == second.layout and first.kind == second.kind
        return alike and self._steps[kernel].format == step.format
