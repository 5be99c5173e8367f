"""A batch of blocks: the number, place and special registers of each of its threads.

Threads are numbered block by block, each block padded to whole warps; what pads never runs.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nybble.backends.gpu.sim.lanes import WARP, Lanes
from nybble.backends.gpu.sim.types import Array

Triple = tuple[int, int, int]
_AXES = "xyz"


def volume(extent: Triple) -> int:
    """How many there are of an extent."""
    return extent[0] * extent[1] * extent[2]


@dataclass(frozen=True)
class Grid:
    """Blocks `first .. first + blocks` of a launch, in the order of clusters.

    extent, block, cluster: as in CUDA, x first.
    """

    extent: Triple
    block: Triple
    cluster: Triple = (1, 1, 1)
    first: int = 0
    blocks: int = 1

    @cached_property
    def warps(self) -> int:
        """Warps of a block."""
        return -(-volume(self.block) // WARP)

    @property
    def stride(self) -> int:
        """Numbers that a block takes."""
        return self.warps * WARP

    @property
    def threads(self) -> int:
        """Numbers that the batch takes."""
        return self.blocks * self.stride

    @cached_property
    def numbers(self) -> Array:
        """0 .. threads."""
        return np.arange(self.threads, dtype=np.int64)

    @cached_property
    def block_of(self) -> Array:
        """Number of the block of each thread, from 0 in this batch."""
        return self.numbers // self.stride

    @cached_property
    def warp_of(self) -> Array:
        """Number of the warp of each thread in its block."""
        return self.numbers % self.stride // WARP

    @cached_property
    def lane_of(self) -> Array:
        """Lane of each thread in its warp."""
        return self.numbers % WARP

    def all(self) -> Lanes:
        """Every thread that exists."""
        inside = self.numbers % self.stride < volume(self.block)
        return Lanes(self.numbers[inside])

    @cached_property
    def special(self) -> dict[str, Array]:
        """Special registers, without their %: u32 or u64 of each thread."""
        made: dict[str, Array] = {}
        tid = self.numbers % self.stride
        size = volume(self.cluster)
        clusters = tuple(-(-n // c) for n, c in zip(self.extent, self.cluster, strict=True))
        number = self.first + self.block_of
        cluster, rank = number // size, number % size
        self._triple(made, "tid", _coordinates(tid, self.block))
        self._triple(made, "ntid", self.block)
        self._triple(made, "clusterid", _coordinates(cluster, clusters))
        self._triple(made, "nclusterid", clusters)
        self._triple(made, "cluster_ctaid", _coordinates(rank, self.cluster))
        self._triple(made, "cluster_nctaid", self.cluster)
        for axis, extent in zip(_AXES, self.cluster, strict=True):
            made[f"ctaid.{axis}"] = (
                made[f"clusterid.{axis}"] * np.uint32(extent) + made[f"cluster_ctaid.{axis}"]
            )
        self._triple(made, "nctaid", self.extent)
        self._one(made, "cluster_ctarank", rank)
        self._one(made, "cluster_nctarank", size)
        self._one(made, "laneid", self.lane_of)
        self._one(made, "warpid", self.warp_of)
        self._one(made, "nwarpid", self.warps)
        bit = np.uint64(1) << self.lane_of.astype(np.uint64)
        self._one(made, "lanemask_eq", bit)
        self._one(made, "lanemask_lt", bit - np.uint64(1))
        self._one(made, "lanemask_le", bit * np.uint64(2) - np.uint64(1))
        self._one(made, "lanemask_gt", ~(bit * np.uint64(2) - np.uint64(1)))
        self._one(made, "lanemask_ge", ~(bit - np.uint64(1)))
        for name in ("smid", "gridid"):
            self._one(made, name, 0)
        self._one(made, "nsmid", 1)
        return made

    def _triple(self, made: dict[str, Array], name: str, values: tuple[Array | int, ...]) -> None:
        for axis, value in zip(_AXES, values, strict=True):
            self._one(made, f"{name}.{axis}", value)

    def _one(self, made: dict[str, Array], name: str, value: Array | int) -> None:
        masked = np.asarray(value).astype(np.uint64) & np.uint64(0xFFFFFFFF)
        made[name] = np.broadcast_to(masked.astype(np.uint32), (self.threads,))


def _coordinates(number: Array, extent: tuple[int, ...]) -> tuple[Array, ...]:
    x, y, _ = extent
    return number % x, number // x % y, number // (x * y)
