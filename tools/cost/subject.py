"""One kernel to be measured under many schedules: its IR, its candidates, and data to run it on."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import Float16Type, Float32Type, IntegerType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from nybble.backends.cpu.bindings.site import Binding, In
from nybble.backends.cpu.bindings.table import bind
from nybble.backends.cpu.compute_layouts import pack_storage
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.schedule_space import Choices, Options
from nybble.costmodel.canonical import parse
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.lowbit.types import STORAGE, LowBitTensorType
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.dialects.schedule.attrs import KernelSchedule
from nybble.tools.random_values import random_weight

Array = npt.NDArray[np.generic]
DISTINCT_ROWS = 64
"""Rows of a weight that differ: quantizing is slow, and products cost the same."""


@dataclass(frozen=True)
class Subject:
    """A kernel in canonical form (see `costmodel.canonical`) with room for `capacity` tokens."""

    text: str
    capacity: int
    isa: Isa

    @cached_property
    def kernel(self) -> KernelOp:
        """The kernel, whose schedule says how many tokens it has room for."""
        found = parse(self.text)
        found.schedule = self.schedule({})
        return found

    @cached_property
    def dataflow(self) -> str:
        """How its products are computed; "vector" without one."""
        products = [op for op in parse(self.text).body.block.ops if isinstance(op, ProductOp)]
        return products[0].DATAFLOW if products else "vector"

    def schedule(self, options: Options) -> KernelSchedule:
        """The attribute for a choice of sizes."""
        return KernelSchedule.get("cpu", self.dataflow, {"tokens": self.capacity, **options}, "")

    @cached_property
    def choices(self) -> Choices:
        """What a schedule may choose; raises NybbleError where that is nothing."""
        found = bind(self.kernel, self.isa, 1).choices
        if found is None:
            raise NybbleError(f'kernel "{self.kernel.kernel_name.data}" leaves nothing to choose')
        return found

    def some_candidates(self, most: int, seed: int) -> list[dict[str, int]]:
        """The default first, then others in a random order; at most so many."""
        default = self.choices.settle({})
        others = [one for one in self.choices.candidates() if one != default]
        order = random.Random(f"{seed} {self.text}")
        return [default, *order.sample(others, min(len(others), most - 1))]

    def bound(self, options: Options) -> Binding:
        """The kernel's first launch under a schedule."""
        self.kernel.schedule = self.schedule(options)
        return bind(self.kernel, self.isa, 1)

    def build(self, options: Options, name: str) -> tuple[FuncOp, list[int]]:
        """The function for a choice of sizes, and the elements of its buffers."""
        kernel = self.bound(options).kernel
        return kernel.build(name), [spec.size for spec in kernel.buffers]

    def buffers(self, sizes: Sequence[int], given: Mapping[int, Array]) -> list[Array]:
        """Memory for each buffer: what was given for its place, else zeros."""
        specs = self.bound(self.choices.settle({})).kernel.buffers
        return [
            given[i] if i in given else np.zeros(size, _numpy(spec.dtype))
            for i, (spec, size) in enumerate(zip(specs, sizes, strict=True))
        ]

    @cached_property
    def inputs(self) -> dict[int, Array]:
        """Place of a buffer -> what it holds: packed weights, and random numbers elsewhere."""
        digest = blake2b(self.text.encode(), digest_size=8).digest()
        source = np.random.default_rng(int.from_bytes(digest, "little"))
        binding = self.bound(self.choices.settle({}))
        found: dict[int, Array] = {}
        for i, (slot, spec) in enumerate(zip(binding.slots, binding.kernel.buffers, strict=True)):
            if isinstance(slot, In):
                type_ = self.kernel.inputs[slot.index].type
                is_weight = isinstance(type_, LowBitTensorType) and type_.layout.data != STORAGE
                found[i] = (
                    _weight(type_, source) if is_weight else _random(spec.dtype, spec.size, source)
                )
        return found


def _weight(type_: Attribute, source: np.random.Generator) -> Array:
    assert isinstance(type_, LowBitTensorType)
    form, rows = type_.number_format, min(type_.rows, DISTINCT_ROWS)
    raw = form.pack(random_weight(form, (rows, type_.cols), source))
    whole = np.tile(raw, (-(-type_.rows // rows), 1))[: type_.rows]
    return pack_storage(type_, whole)


def _numpy(dtype: Attribute) -> str:
    match dtype:
        case Float32Type():
            return "float32"
        case Float16Type():
            return "float16"
        case IntegerType():
            return f"int{dtype.width.data}"
        case other:
            raise NybbleError(f"no measurement on a buffer of {other}")


def _random(dtype: Attribute, size: int, source: np.random.Generator) -> Array:
    """Numbers that are harmless as anything: scales must be positive, codes may be any."""
    name = _numpy(dtype)
    if name.startswith("float"):
        return source.uniform(0.01, 0.02, size).astype(name)
    most = 127 if name == "int8" else 16
    return source.integers(-most, most, size, endpoint=True).astype(name)
