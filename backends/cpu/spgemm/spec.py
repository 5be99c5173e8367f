"""What a sparse kernel is generated for, and its arithmetic on values."""

from dataclasses import dataclass
from functools import cached_property

from xdsl.dialects.builtin import IntegerType, bf16, f16
from xdsl.ir import Attribute

from nybble.backends.building.values import f64
from nybble.backends.cpu.kernels.buffers import Buffer, BufferSpec, byte_width
from nybble.backends.cpu.kernels.builder import KernelBuilder, Operand, Value, f32, i8, i32, i64
from nybble.dialects.spgemm.elements import ELEMENTS
from nybble.dialects.spgemm.semiring import SEMIRINGS

ANY = 1 << 40
"""The nominal size of a buffer whose size is known when it is called only."""
TYPES: dict[str, Attribute] = {
    "f64": f64,
    "f32": f32,
    "f16": f16,
    "bf16": bf16,
    "i64": i64,
    "i32": i32,
    "i8": i8,
}


@dataclass(frozen=True)
class Spec:
    """Element type (a name in ELEMENTS), width of indices (32 or 64), and semiring of a product."""

    element: str
    index_bits: int = 32
    ring: str = "plus_times"

    @property
    def name(self) -> str:
        """What kernels of it are called."""
        return f"{self.ring}_{self.element}_i{self.index_bits}"

    @cached_property
    def value(self) -> Attribute:
        """The type of stored values."""
        return TYPES[self.element]

    @cached_property
    def sum_name(self) -> str:
        """Name of the type of sums and results."""
        return self.element if self.ring == "or_and" else ELEMENTS[self.element].sum

    @cached_property
    def sum(self) -> Attribute:
        """The type of sums and results."""
        return TYPES[self.sum_name]

    @cached_property
    def sum_bytes(self) -> int:
        """Bytes of a sum."""
        return byte_width(self.sum)

    @property
    def index(self) -> IntegerType:
        """The type of indices."""
        return IntegerType(self.index_bits)

    def values(self, name: str) -> BufferSpec:
        """A buffer of stored values."""
        return BufferSpec(name, ANY, self.value)

    def sums(self, name: str) -> BufferSpec:
        """A buffer of sums."""
        return BufferSpec(name, ANY, self.sum)

    def indices(self, name: str) -> BufferSpec:
        """A buffer of indices, or of the starts of rows."""
        return BufferSpec(name, ANY, self.index)


@dataclass(frozen=True)
class Arithmetic:
    """The semiring on values that a kernel holds, scalars or vectors."""

    b: KernelBuilder
    spec: Spec

    def wide(self, value: Value) -> Value:
        """A stored value as a sum."""
        spec = self.spec
        if spec.value == spec.sum:
            return value
        if ELEMENTS[spec.element].is_float:
            return self.b.to_float(value, spec.sum)
        return self.b.sext(value, spec.sum)

    def zero(self, type_: Attribute | None = None) -> Value:
        """The neutral element of addition, of the type of sums or a vector of them."""
        kind = type_ or self.spec.sum
        number = SEMIRINGS[self.spec.ring].zero(ELEMENTS[self.spec.sum_name].dtype)
        floats = ELEMENTS[self.spec.sum_name].is_float
        return self.b.const(float(number) if floats else int(number), kind)

    def multiply(self, a: Value, x: Value) -> Value:
        """a (x) x."""
        if self.spec.ring == "min_plus":
            return a + x
        return a & x if self.spec.ring == "or_and" else a * x

    def add(self, total: Value, term: Value) -> Value:
        """total (+) term."""
        if self.spec.ring == "min_plus":
            return self.b.min(term, total)
        return total | term if self.spec.ring == "or_and" else total + term

    def multiply_add(self, total: Value, a: Value, x: Value) -> Value:
        """total (+) a (x) x, with one rounding of floats."""
        if self.spec.ring == "plus_times" and total.is_float:
            return self.b.fma(a, x, total)
        return self.add(total, self.multiply(a, x))

    def load_wide(self, buffer: Buffer, position: Operand, count: int = 1) -> Value:
        """Stored values as sums: a scalar, or a vector of `count`."""
        loaded = buffer.load(position) if count == 1 else buffer.vload(position, count)
        return self.wide(loaded)
