"""What a kernel costs: shared-memory wavefronts, global sectors, and instructions.

A warp's access to shared memory takes one wavefront for each different word in the fullest bank,
counted apart for the two halves of 8-byte accesses and the quarters of 16-byte ones. A global
access moves sectors of 32 bytes. Both as in NVIDIA's Nsight Compute documentation.
"""

from dataclasses import dataclass, field

import numpy as np

from nybble.backends.gpu.sim.lanes import WARP, Lanes
from nybble.backends.gpu.sim.types import Array

BANKS = 32
SECTOR = 32


@dataclass
class Traffic:
    """Accesses of one instruction: what they took and what would have been the least.

    shared memory: wavefronts; global memory: sectors, and bytes that were asked for.
    """

    accesses: int = 0
    taken: int = 0
    ideal: int = 0
    bytes: int = 0


@dataclass
class Profile:
    """Counts by index of the instruction. enabled: whether accesses are counted at all.

    seen: what patterns of addresses took, as loops repeat them: wavefronts, or sectors and bytes.
    """

    enabled: bool = True
    shared: dict[int, Traffic] = field(default_factory=dict[int, Traffic])
    globals: dict[int, Traffic] = field(default_factory=dict[int, Traffic])
    seen: dict[tuple[int, bytes], tuple[int, int]] = field(
        default_factory=dict[tuple[int, bytes], tuple[int, int]]
    )

    def shared_access(self, pc: int, lanes: Lanes, addresses: Array, size: int) -> None:
        """Count an access of `size` bytes a lane to shared memory."""
        if not self.enabled:
            return
        phases = max(1, min(size, 16) // 4)
        rows = _filled(lanes, addresses, phases)
        key = (size, rows.astype(np.int32).tobytes())
        if key not in self.seen:
            words = rows.reshape(len(rows) * phases, WARP // phases, 1) // 4
            words = (words + np.arange(max(1, size // 4))).reshape(len(words), -1)
            self.seen[key] = (wavefronts(words), 0)
        traffic = self.shared.setdefault(pc, Traffic())
        traffic.accesses += len(rows)
        traffic.taken += self.seen[key][0]
        traffic.ideal += len(rows) * phases
        traffic.bytes += lanes.size * size

    def shared_rows(self, pc: int, rows: Array) -> None:
        """Count accesses of 8 rows of 16 bytes each: ldmatrix. rows: addresses [accesses, 8]."""
        if not self.enabled:
            return
        key = (0, rows.astype(np.int32).tobytes())
        if key not in self.seen:
            words = (rows[:, :, None] // 4 + np.arange(4)).reshape(len(rows), -1)
            self.seen[key] = (wavefronts(words), 0)
        traffic = self.shared.setdefault(pc, Traffic())
        traffic.accesses += len(rows)
        traffic.taken += self.seen[key][0]
        traffic.ideal += len(rows)
        traffic.bytes += len(rows) * 128

    def global_access(self, pc: int, lanes: Lanes, addresses: Array, size: int) -> None:
        """Count an access of `size` bytes a lane to global memory."""
        if not self.enabled:
            return
        rows = _filled(lanes, addresses)
        relative = (rows - int(rows[0, 0]) // SECTOR * SECTOR).astype(np.int32)
        key = (-size, relative.tobytes())
        if key not in self.seen:
            parts = max(1, size // SECTOR)
            sectors = (rows[:, :, None] // SECTOR + np.arange(parts)).reshape(len(rows), -1)
            self.seen[key] = (distinct(sectors), distinct(rows // size) * size)
        taken, useful = self.seen[key]
        traffic = self.globals.setdefault(pc, Traffic())
        traffic.accesses += len(rows)
        traffic.taken += taken
        traffic.ideal += -(-useful // SECTOR)
        traffic.bytes += useful

    def bulk(self, pc: int, size: int) -> None:
        """Count a bulk copy from or to global memory."""
        if not self.enabled:
            return
        traffic = self.globals.setdefault(pc, Traffic())
        traffic.accesses += 1
        traffic.taken += -(-size // SECTOR)
        traffic.ideal += -(-size // SECTOR)
        traffic.bytes += size


def _filled(lanes: Lanes, addresses: Array, phases: int = 1) -> Array:
    """Addresses [warps, 32]; a lane that is not there repeats the first that is, of those of its
    phase if there are any, else of its warp.
    """
    warps = lanes.warps
    rows = warps.spread(addresses)
    if warps.whole:
        return rows
    shape = (len(rows), phases, WARP // phases)
    parts, active = rows.reshape(shape), warps.active.reshape(shape)
    first = rows[np.arange(len(rows)), warps.active.argmax(axis=1)].reshape(-1, 1, 1)
    near = np.take_along_axis(parts, active.argmax(axis=2, keepdims=True), axis=2)
    known = np.where(active.any(axis=2, keepdims=True), near, first)
    return np.where(active, parts, known).reshape(rows.shape)


def distinct(rows: Array) -> int:
    """How many different values the rows of an array have, all rows together."""
    ordered = np.sort(rows, axis=1)
    return len(rows) + int((ordered[:, 1:] != ordered[:, :-1]).sum())


def wavefronts(words: Array) -> int:
    """Sum over rows of the most different words that fall into one bank."""
    ordered = np.sort(words, axis=1)
    fresh = np.ones(ordered.shape, np.bool_)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    rows, columns = np.nonzero(fresh)
    banks = rows * BANKS + ordered[rows, columns] % BANKS
    counts = np.bincount(banks, minlength=len(words) * BANKS)
    return int(counts.reshape(-1, BANKS).max(axis=1).sum())
