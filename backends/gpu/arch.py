"""GPU architectures as data: what a kernel may use on each, and what its usual board has.

Sources: CUDA C++ Programming Guide 13.0, tables "Technical Specifications per Compute Capability";
PTX ISA 9.0, the target notes of each instruction; NVIDIA's white papers and data sheets of boards.
The clocks under load are assumed.
"""

from dataclasses import dataclass, replace

from nybble.backends.gpu.lookup import EXTENSION
from nybble.dialects.errors import UnknownNameError


@dataclass(frozen=True)
class Board:
    """A board: sms, bandwidth of its memory in GB/s, clock in MHz under load (assumed)."""

    name: str
    sms: int
    bandwidth: float
    clock: int


@dataclass(frozen=True)
class Arch:
    """An architecture.

    ptx: version of the PTX language that kernels are written in. shared: most bytes of shared
    memory of a block. registers: of a multiprocessor. native: elements that `mma` multiplies in
    hardware. products: f16 multiply-adds of a multiprocessor in a cycle by `mma` (of sm_90a: 60% of
    the 2048 that `wgmma` reaches, assumed). group_products: by `wgmma`, of warpgroups (80% of that,
    assumed); 0 where there is none. board: what grids are sized for.
    """

    name: str
    ptx: str
    shared: int
    registers: int
    native: frozenset[str]
    products: int
    group_products: int
    has_bulk_copy: bool
    board: Board

    @property
    def real(self) -> str:
        """The name of the hardware."""
        return self.name.removesuffix(EXTENSION)


_AMPERE = frozenset({"f16", "bf16", "s8", "s4", "b1"})
_ADA = _AMPERE | {"e4m3", "e5m2"}
_BLACKWELL = frozenset({"f16", "bf16", "s8", "e4m3", "e5m2", "e2m1"})
ARCHS = {
    one.name: one
    for one in (
        Arch("sm_80", "ptx80", 163 * 1024, 65536, _AMPERE, 1024, 0, has_bulk_copy=False,
              board=Board("A100-SXM4-80GB", 108, 2039.0, 1275)),
        Arch("sm_89", "ptx80", 99 * 1024, 65536, _ADA, 512, 0, has_bulk_copy=False,
              board=Board("L40S", 142, 864.0, 2100)),
        Arch("sm_90a", "ptx80", 227 * 1024, 65536, _ADA - {"s4"}, 1230, 1638,
             has_bulk_copy=True, board=Board("H100-SXM5-80GB", 132, 3352.0, 1700)),
        Arch("sm_120a", "ptx87", 99 * 1024, 65536, _BLACKWELL, 512, 0,
             has_bulk_copy=True, board=Board("RTX 5090", 170, 1792.0, 2400)),
    )
}  # fmt: skip


IMAGINED = tuple(f"{name}{EXTENSION}" for name in ("sm_90a",))
"""Architectures that simulations alone know, with an instruction that no hardware has."""


def find_arch(name: str) -> Arch:
    """The architecture of that name; raises UnknownNameError."""
    if name in IMAGINED:
        return replace(ARCHS[name.removesuffix(EXTENSION)], name=name)
    if name not in ARCHS:
        known = ", ".join((*ARCHS, *IMAGINED))
        raise UnknownNameError(f"unknown GPU architecture '{name}'", accepted=known)
    return ARCHS[name]
