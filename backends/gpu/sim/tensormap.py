"""A descriptor of the tensor memory accelerator: how boxes of a tensor are copied."""

from dataclasses import dataclass
from enum import IntEnum

from nybble.backends.gpu.sim.types import Array
from nybble.dialects.errors import NybbleError

BYTES = 128


class Swizzle(IntEnum):
    """How 16-byte chunks are exchanged in shared memory; the value is the span in bytes."""

    NONE = 0
    B32 = 32
    B64 = 64
    B128 = 128


@dataclass(frozen=True)
class TensorMap:
    """What cuTensorMapEncodeTiled makes: a tensor of up to 5 dimensions, the innermost first.

    array: the memory. element: bytes of one (1, 2, 4 or 8). shape: elements. strides: bytes
    between elements of dimensions 1, 2, ..; those of a dense tensor by default. box: elements of a
    copy. What lies outside of the tensor is read as zeros.
    """

    array: Array
    element: int
    shape: tuple[int, ...]
    box: tuple[int, ...]
    strides: tuple[int, ...] = ()
    swizzle: Swizzle = Swizzle.NONE

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= 5 or len(self.box) != len(self.shape):
            raise NybbleError(
                f"a tensor map of shape {self.shape} and box {self.box}",
                accepted="1 to 5 dimensions, as many in both",
            )
        if any(not 1 <= side <= 256 for side in self.box):
            raise NybbleError(f"a box of {self.box} elements", accepted="1 to 256 on each side")
        inner = self.box[0] * self.element
        if inner % 16 or (self.swizzle and inner > self.swizzle):
            limit = f", at most {int(self.swizzle)}" if self.swizzle else ""
            raise NybbleError(
                f"rows of a box of {inner} bytes", accepted=f"multiples of 16 bytes{limit}"
            )
        if any(stride % 16 for stride in self.byte_strides[1:]):
            raise NybbleError(
                f"strides of {self.byte_strides[1:]} bytes", accepted="multiples of 16"
            )

    @property
    def byte_strides(self) -> tuple[int, ...]:
        """Bytes between neighbours of each dimension."""
        if self.strides:
            return (self.element, *self.strides)
        made = [self.element]
        for side in self.shape[:-1]:
            made.append(made[-1] * side)
        return tuple(made)
