"""A compiled kernel: its PTX and all that a launch must know; what a manifest holds of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nybble.dialects.errors import NybbleError


class Access(StrEnum):
    """What a kernel does with a buffer, or that a parameter is a number."""

    READ = "read"
    WRITE = "write"
    UPDATE = "update"
    VALUE = "value"


@dataclass(frozen=True)
class Boxes:
    """How the tensor memory accelerator copies a dense matrix: in boxes, the fastest axis first.

    shape, box: elements; what lies outside is read as zeros. swizzle: its span in bytes, or 0.
    """

    shape: tuple[int, int]
    box: tuple[int, int]
    swizzle: int


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel, in order.

    dtype: element type of a buffer ("f16", "bf16", "f32", "i32", "u8", ..), or the type of a number
    ("i32", "i64", "f32"), or "tensormap" for a descriptor of the tensor memory accelerator.
    bytes: least size of a buffer; 0 for a number. boxes: of a buffer that the kernel is given as a
    tensor map; who launches it gives the buffer.
    """

    name: str
    dtype: str
    access: Access
    bytes: int = 0
    boxes: Boxes | None = None


@dataclass(frozen=True)
class KernelImage:
    """A kernel for one architecture, such as "sm_90a", with its one way to be launched.

    grid, block, cluster: as in CUDA, x first. shared: bytes of dynamic shared memory. zeroed:
    names of buffers that must hold zeros before each launch. facts: for people and tests, such as
    the format and the shape; nothing depends on them.
    """

    name: str
    arch: str
    ptx: str
    parameters: tuple[Parameter, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int = 0
    cluster: tuple[int, int, int] = (1, 1, 1)
    zeroed: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name; raises NybbleError."""
        for one in self.parameters:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.parameters)
        raise NybbleError(f"kernel '{self.name}' has no parameter '{name}'", accepted=known)
