"""What a matmul kernel computes, as frozen data, and the buffers it takes.

`y[n, r] = epilogue(sum_k x[n, k] * W[r, k])` for the rows of one or more weights (parts) that
share an activation; what W is, `codes` says.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from nybble.backends.building.values import f32, i8, i32
from nybble.backends.cpu import isa as isa_levels
from nybble.backends.cpu.additions import NOTHING, Added
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.buffers import BufferSpec
from nybble.backends.cpu.kernels.loops import padded_rows
from nybble.backends.cpu.kernels.matmul.codes import Codes, Integers, Kind
from nybble.backends.cpu.split_floats import SplitLayout
from nybble.backends.cpu.tile_layout import DenseLayout, TileLayout
from nybble.dialects.errors import NybbleError
from nybble.dialects.numpy_ref.quantize import LARGEST

GLUS = ("", "silu", "gelu_tanh", "sigmoid")


class MatmulError(NybbleError):
    """A matmul that no kernel here computes."""


class Layout(Protocol):
    """The packed layout of one part."""

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


class ProductSpec(ABC):
    """What the specification of a product has, whatever computes it.

    rows: of each part; cols: contracted length. tokens: the most token rows of a call; with 1 the
    kernel ignores n. bias: add a vector to each part. residual: add to what the outputs hold.
    glu: "" or a gate: two equal parts become one output, activation(y0) * y1.
    threads: the most that run the kernel; each has its own slice of the scratch buffer.
    isa: what instructions it may use.
    added: outliers and low-rank factors that are added to each part, in f32.
    """

    rows: tuple[int, ...]
    cols: int
    tokens: int
    bias: bool
    residual: bool
    glu: str
    threads: int
    isa: Isa
    added: Added = NOTHING

    def check_outputs(self) -> None:
        """Raise MatmulError where parts, tokens, gate and residual do not go together."""
        if not self.rows or self.tokens < 1 or self.threads < 1:
            raise MatmulError(f"a matmul needs rows, tokens and threads: {self}")
        if self.glu not in GLUS:
            raise MatmulError(f"unknown gate '{self.glu}'", accepted=", ".join(GLUS[1:]))
        if self.glu and (len(self.rows) != 2 or len(set(self.rows)) != 1 or self.residual):
            raise MatmulError(
                f"a gated output of parts {self.rows} with residual={self.residual}",
                accepted="two parts with equally many rows, no residual",
            )

    @property
    @abstractmethod
    def layouts(self) -> Sequence[Layout]:
        """The packed layout of each part; raises LayoutError where there is none."""

    @property
    def part_sizes(self) -> list[int]:
        """Bytes of each part's weight, and of what is added to it, which follows."""
        sizes = zip(self.rows, self.layouts, strict=True)
        return [part.size + self.added.layout(rows, self.cols).size for rows, part in sizes]

    @abstractmethod
    def activation_buffers(self) -> list[BufferSpec]:
        """The buffers of the activation, which come first."""

    @property
    def joined(self) -> tuple[tuple[int, ...], ...]:
        """For each output, the parts that make it: both with a gate, else one."""
        return ((0, 1),) if self.glu else tuple((i,) for i in range(len(self.rows)))

    @property
    def outputs(self) -> tuple[int, ...]:
        """Columns of each output."""
        return self.rows[:1] if self.glu else self.rows

    @property
    def padded(self) -> int:
        """Token rows that activation and output buffers have room for."""
        return padded_rows(self.tokens)

    def buffers(self, scratch: int = 0) -> list[BufferSpec]:
        """The kernel's memref arguments in order, with `scratch` bytes for each thread if any.

        The activation's, then w0, w1, .., then b0, .. with a bias, then y0, .., then scratch.
        """
        buffers = self.activation_buffers()
        buffers += [BufferSpec(f"w{i}", size, i8) for i, size in enumerate(self.part_sizes)]
        if self.bias:
            buffers += [BufferSpec(f"b{i}", rows, f32) for i, rows in enumerate(self.rows)]
        for i, rows in enumerate(self.outputs):
            buffers.append(BufferSpec(f"y{i}", self.padded * rows, f32))
        if scratch:
            buffers.append(BufferSpec("scratch", scratch * self.threads, i8))
        return buffers


@dataclass(frozen=True)
class MatmulSpec(ProductSpec):
    """A matmul of the token rows x [n, cols] with the weights of `rows`.

    weight: what the parts' weights are. added: outliers and low-rank factors that are added to each
    part, in f32.
    activations: "a8" takes int8 codes q, scales s and sums z per `activation_group` columns;
    "f32" takes x f32 and computes in f32; "bf16" takes x f32 and may round operands to bf16.
    digits: int8 codes per activation, [digits, tokens, cols]; with 2 it is 256 * q[0] + q[1].
    The other fields are those of ProductSpec.
    """

    weight: Kind
    rows: tuple[int, ...]
    cols: int
    tokens: int = 1
    activations: Literal["a8", "f32", "bf16"] = "a8"
    activation_group: int = 32
    digits: int = 1
    bias: bool = False
    residual: bool = False
    glu: str = ""
    added: Added = NOTHING
    threads: int = 8
    isa: Isa = isa_levels.BASELINE

    def __post_init__(self) -> None:
        self.check_outputs()
        if self.activations == "a8":
            self._check_activation_group()
            self._check_digits()
        assert self.layouts, "a layout for each part"

    def _check_activation_group(self) -> None:
        if not isinstance(self.weight, Codes):
            raise MatmulError("8-bit activations with float weights", accepted="f32 activations")
        assert self.integers
        group = self.weight.group
        if self.activation_group < 1 or group % self.activation_group:
            raise MatmulError(
                f"activations in groups of {self.activation_group}, weights in groups of {group}",
                accepted=f"a divisor of {group}",
            )
        span = self.weight.layout(1, self.cols).step
        if self.activation_group % span:
            raise MatmulError(
                f"activations in groups of {self.activation_group} for codes of "
                f"{self.weight.bits} bits",
                accepted=f"a multiple of {span}",
            )

    def _check_digits(self) -> None:
        """A group's integer product fits in 32 bits; sums on the way to it may wrap around."""
        if self.digits not in LARGEST:
            raise MatmulError(
                f"activations of {self.digits} digits", accepted=", ".join(map(str, LARGEST))
            )
        assert isinstance(self.weight, Codes)
        steepest = self.integers.steepest(self.weight.bits) * LARGEST[self.digits]
        if self.activation_group * steepest >= 2**31:
            raise MatmulError(
                f"activations of {self.digits} digits in groups of {self.activation_group} for "
                f"codes of {self.weight.bits} bits",
                accepted=f"groups of at most {(2**31 - 1) // steepest}",
            )

    @cached_property
    def integers(self) -> Integers:
        """T for an integer dot product; raises MatmulError where there is none."""
        found = self.weight.integers if isinstance(self.weight, Codes) else None
        if found is None:
            raise MatmulError(
                "8-bit activations with weights that are not integers of 8 bits",
                accepted="f32 activations",
            )
        return found

    @property
    def layouts(self) -> tuple[TileLayout | DenseLayout | SplitLayout, ...]:
        """The packed layout of each part; raises LayoutError where there is none."""
        return tuple(self.weight.layout(rows, self.cols) for rows in self.rows)

    @property
    def plane(self) -> int:
        """Elements of q that hold one digit."""
        return self.padded * self.cols

    def activation_buffers(self) -> list[BufferSpec]:
        """q, s, z, or x."""
        if self.activations != "a8":
            return [BufferSpec("x", self.plane, f32)]
        groups = self.cols // self.activation_group
        return [
            BufferSpec("q", self.digits * self.plane, i8),
            BufferSpec("s", self.padded * groups, f32),
            BufferSpec("z", self.padded * groups, i32),
        ]
