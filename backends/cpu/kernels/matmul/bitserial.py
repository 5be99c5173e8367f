"""Products by popcounts: what a kernel of bit planes computes, as frozen data.

A code c of n bits stands for the bipolar integer `B(c) = sum 2^i (2 c_i - 1) = 2 c - (2^n - 1)`
(APT-LLM's bipolar-INT, arXiv 2409.17870). Planes of bipolar weights w and activations a multiply by
counting where their bits differ,

    sum_k B(w) B(a) = K (2^W - 1) (2^A - 1) - 2 sum_ij 2^(i+j) popcount(w_i ^ a_j),

in place of the paper's recovery from `popcount(w_i & a_j)`: no sums of either side are needed, and
columns of padding, zero on both sides, count nothing. Any other integer code is bipolar too, since
`c - p = (B(c) + 2^n - 1 - 2 p) / 2`: the offset enters through z, the sum of a group's activations.
"""

from dataclasses import dataclass

from nybble.backends.building.values import f32, i32
from nybble.backends.cpu import isa as isa_levels
from nybble.backends.cpu.bit_planes import PlaneLayout, words_of
from nybble.backends.cpu.float_bytes import FloatName
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.buffers import BufferSpec
from nybble.backends.cpu.kernels.matmul.spec import MatmulError, ProductSpec


@dataclass(frozen=True)
class Planes:
    """Weights as bit planes: the fields of PlaneLayout, and T(c) = unit * (B(c) + offset)."""

    bits: int
    group: int
    unit: float = 1.0
    offset: int = 0
    has_zero: bool = False
    scale: FloatName = "f16"

    def layout(self, rows: int, cols: int) -> PlaneLayout:
        """The layout of a part."""
        return PlaneLayout(rows, cols, self.bits, self.group, self.has_zero, self.scale)


@dataclass(frozen=True)
class BitserialSpec(ProductSpec):
    """A product of bipolar activations [n, cols] with the weights of `rows`.

    weight: what the parts' weights are. bits: of an activation, which comes as words q
    [tokens][group][32 columns][plane], scales s and sums z per group.
    The other fields are those of ProductSpec.
    """

    weight: Planes
    rows: tuple[int, ...]
    cols: int
    bits: int
    tokens: int = 1
    bias: bool = False
    residual: bool = False
    glu: str = ""
    threads: int = 8
    isa: Isa = isa_levels.BASELINE

    def __post_init__(self) -> None:
        self.check_outputs()
        if not 1 <= self.bits <= 8:
            raise MatmulError(f"activations of {self.bits} bits in planes", accepted="1 to 8 bits")
        if self.weight.group > (most := largest_group(self.weight.bits, self.bits)):
            raise MatmulError(
                f"groups of {self.weight.group} columns of {self.weight.bits} bits by {self.bits}",
                accepted=f"groups of at most {most}, whose sums fit 32 bits",
            )
        assert self.layouts, "a layout for each part"

    @property
    def layouts(self) -> tuple[PlaneLayout, ...]:
        """See ProductSpec."""
        return tuple(self.weight.layout(rows, self.cols) for rows in self.rows)

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.cols // self.weight.group

    @property
    def words(self) -> int:
        """Words of one plane of a group."""
        return words_of(self.weight.group)

    @property
    def token_words(self) -> int:
        """Words of q for one token."""
        return self.groups * self.words * self.bits

    @property
    def pairs(self) -> int:
        """Largest product of two codes, the K of the module's text for one column."""
        return (2**self.weight.bits - 1) * (2**self.bits - 1)

    def activation_buffers(self) -> list[BufferSpec]:
        """q, s, z."""
        return [
            BufferSpec("q", self.padded * self.token_words, i32),
            BufferSpec("s", self.padded * self.groups, f32),
            BufferSpec("z", self.padded * self.groups, i32),
        ]


def largest_group(weight_bits: int, activation_bits: int) -> int:
    """The longest group whose integer product fits 32 bits: |B(w) + offset| <= 2 (2^W - 1)."""
    return (2**31 - 1) // (2 * (2**weight_bits - 1) * (2**activation_bits - 1))
