"""Keys and values of the next steps on their way through shared memory, a ring for each warp.

A lane copies the very bytes that it will read, side by side with what its neighbours copy at the
same time: so lanes need not wait for each other, and no two of them want one bank.

    [stage]{ [load of keys][lane][part]   [load of values][lane][part] }
"""

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.attention.fragments import RowPart
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec

LANES = 32
VALUE_ROWS = (0, 1, 8, 9)
"""Which keys of 16 a lane has the values of, beside its own 2 t."""


def key_rows(spec: DecodeSpec) -> list[int]:
    """Keys of a step whose parts a lane reads, beside its own g."""
    return [*range(0, spec.step, 8)]


def value_rows(spec: DecodeSpec) -> list[int]:
    """Keys of a step of whose values a lane reads parts, beside its own 2 t."""
    return [tile + row for tile in range(0, spec.step, 16) for row in VALUE_ROWS]


def step_bytes(spec: DecodeSpec) -> int:
    """Keys and values of a step."""
    return 2 * spec.step * spec.head_dim * spec.bits // 8


class Lanes:
    """One of the two kinds: what a lane copies of a step, and reads."""

    def __init__(self, spec: DecodeSpec, part: RowPart, rows: list[int]) -> None:
        row = spec.head_dim * spec.bits // 8
        self.size = part.chunk
        self.places = [key * row + more for key in rows for more in part.offsets]
        self.bytes = len(self.places) * LANES * self.size

    def copy(self, b: GpuBuilder, target: Value, source: Value) -> None:
        """Ask for a step; target: the lane's first place in a stage, source: its first bytes."""
        kind, hint = ("cg", ".L2::128B") if self.size == 16 else ("ca", "")
        for i, place in enumerate(self.places):
            to = i * LANES * self.size
            text = f"cp.async.{kind}.shared.global{hint} [$0+{to}], [$1+{place}], {self.size};"
            b.ptx(text, (), [target, source], effects=True)

    def read(self, b: GpuBuilder, source: Value) -> list[Value]:
        """The words of a step."""
        words: list[Value] = []
        for i in range(len(self.places)):
            at = b.offset(source, i * LANES * self.size)
            if self.size == 4:
                words.append(b.load(at, i32))
            else:
                words += b.lanes_of(b.load(at, vec(self.size // 4, i32)))
        return words
