"""The memories of a batch: bytes, where addresses lie in them, and what is wrong with accesses.

Global buffers lie 1 << 40 apart, so that an address belongs to one buffer however far it is off.
The windows of shared memory, local memory and parameters have numbers of their own, which makes
addresses generic.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.grid import Grid
from nybble.backends.gpu.sim.lanes import Lanes
from nybble.backends.gpu.sim.shadow import GlobalShadow, Reporter, SharedShadow
from nybble.backends.gpu.sim.types import WIDE, Array

SHIFT = 40
SHARED_WINDOW, LOCAL_WINDOW, PARAM_WINDOW, FIRST_BUFFER = 1, 2, 3, 4
OFFSETS = (1 << SHIFT) - 1
_BIAS = 1 << 32
"""Where a buffer begins in its window, so that what lies before it is in the window too."""
CLUSTER_SHIFT = 24
CONSTANTS = (FIRST_BUFFER << SHIFT) + _BIAS
"""Where constant memory, which is buffer 0, begins."""
_TRASH = 512
_ALIGN = 256
_UNWRITTEN = 0xCD


class Bytes:
    """Bytes that are read and written as numbers of 1 to 16 bytes, at multiples of their size."""

    def __init__(self, size: int) -> None:
        rounded = -(-max(size, 16) // 16) * 16
        self.data = np.full(rounded, _UNWRITTEN, np.uint8)
        types = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: WIDE}
        self.views: dict[int, Array] = {n: self.data.view(t) for n, t in types.items()}

    def gather(self, positions: Array, size: int) -> Array:
        """uint8[positions, size]."""
        if size <= 16:
            taken = self.views[size][positions // size]
            return taken.view(np.uint8).reshape(len(positions), size)
        parts = (positions // 16)[:, None] + np.arange(size // 16)
        return self.views[16][parts].view(np.uint8).reshape(len(positions), size)

    def scatter(self, positions: Array, values: Array) -> None:
        """Write uint8[positions, size]."""
        size = values.shape[1]
        flat = np.ascontiguousarray(values)
        if size <= 16:
            view = self.views[size]
            view[positions // size] = flat.view(view.dtype).reshape(-1)
            return
        parts = (positions // 16)[:, None] + np.arange(size // 16)
        self.views[16][parts] = flat.view(WIDE).reshape(len(positions), -1)


@dataclass
class Buffer:
    """A global buffer. start: of its bytes; read_only, output: what a kernel may do with it."""

    name: str
    size: int
    start: int
    read_only: bool = False
    output: bool = False


@dataclass
class GlobalLayout:
    """The buffers of a launch, and its bytes once `close` was called."""

    buffers: list[Buffer] = field(default_factory=list[Buffer])
    top: int = _TRASH

    def add(self, name: str, size: int, *, read_only: bool = False, output: bool = False) -> int:
        """The address of a new buffer."""
        self.buffers.append(Buffer(name, size, self.top, read_only, output))
        self.top = -(-(self.top + size) // _ALIGN) * _ALIGN
        return self.address(len(self.buffers) - 1)

    @staticmethod
    def address(number: int) -> int:
        """Where a buffer begins."""
        return ((number + FIRST_BUFFER) << SHIFT) + _BIAS

    def find(self, address: int) -> tuple[Buffer, int] | None:
        """The buffer of an address and the offset in it."""
        number = (address >> SHIFT) - FIRST_BUFFER
        if 0 <= number < len(self.buffers):
            return self.buffers[number], (address & OFFSETS) - _BIAS
        return None


class GlobalMemory:
    """Global memory and its shadow. Addresses are int64."""

    def __init__(self, layout: GlobalLayout, grain: int) -> None:
        self.layout = layout
        self.bytes = Bytes(layout.top)
        self.shadow = GlobalShadow(-(-len(self.bytes.data) // grain), grain)
        self.starts = np.array([0, 0, 0, 0, *(one.start for one in layout.buffers)], np.int64)
        self.sizes = np.array([0, 0, 0, 0, *(one.size for one in layout.buffers)], np.int64)
        self.reporter: Reporter | None = None
        for one in layout.buffers:
            cells = slice(one.start // grain, -(-(one.start + one.size) // grain))
            self.shadow.undefined[cells] = one.output
            self.shadow.quiet[cells] = one.read_only

    def view(self, number: int) -> Array:
        """The bytes of a buffer."""
        one = self.layout.buffers[number]
        return self.bytes.data[one.start : one.start + one.size]

    def locate(self, addresses: Array, size: int, what: str) -> tuple[Array, bool]:
        """Positions of accesses, those that are wrong in a place of trash, and if all are right."""
        number = addresses >> SHIFT
        offset = (addresses & OFFSETS) - _BIAS
        inside = (number >= FIRST_BUFFER) & (number < len(self.starts))
        number = np.where(inside, number, 0)
        wrong = ~inside | (offset < 0) | (offset + size > self.sizes[number])
        skewed = offset % size if size <= 16 else offset % 16
        if not (wrong.any() or skewed.any()):
            return self.starts[number] + offset, True
        assert self.reporter is not None
        if wrong.any():
            text = f"{what} of {size} bytes at {self.describe(int(addresses[wrong][0]))}"
            self.reporter.add(Kind.BOUNDS, text, "global")
        skewed_only = (skewed != 0) & ~wrong
        if skewed_only.any():
            where = self.describe(int(addresses[skewed_only][0]))
            self.reporter.add(Kind.ALIGNMENT, f"{what} of {size} bytes at {where}", "global")
        bad = wrong | (skewed != 0)
        return np.where(bad, 0, self.starts[number] + offset), False

    def describe(self, address: int) -> str:
        """An address for people."""
        found = self.layout.find(address)
        if found is None:
            return f"address {address & (2**64 - 1):#x}, where no buffer is"
        buffer, offset = found
        return f"byte {offset} of '{buffer.name}', which has {buffer.size}"

    def load(self, lanes: Lanes, addresses: Array, size: int, *, strong: bool = False) -> Array:
        """uint8[lanes, size]."""
        positions, right = self.locate(addresses, size, "a read")
        if right:
            self.shadow.read(lanes, self.shadow.cells(positions, size), strong=strong)
        return self.bytes.gather(positions, size)

    def store(self, lanes: Lanes, addresses: Array, values: Array, *, strong: bool = False) -> None:
        """Write uint8[lanes, size]."""
        size = values.shape[1]
        positions, right = self.locate(addresses, size, "a write")
        if not right:
            self.bytes.scatter(positions, values)
            return
        cells = self.shadow.cells(positions, size)
        self.check_writable(cells, addresses)
        stamp = self.shadow.write(lanes, cells, strong=strong)
        self.bytes.scatter(positions, values)
        left = self.shadow.writes[cells]
        if (left != stamp).any():
            different = (self.bytes.gather(positions, size) != values).any()
            self.shadow.collide(left, stamp, different=bool(different))

    def check_writable(self, cells: Array, addresses: Array) -> None:
        """Report a write to what may only be read."""
        quiet = self.shadow.quiet[cells]
        if quiet.any():
            assert self.reporter is not None
            where = self.describe(int(addresses[quiet.any(axis=1)][0]))
            self.reporter.add(Kind.BOUNDS, f"a write to {where} and is only read", "constant")


class SharedMemory:
    """The shared memory of each block of a batch. Addresses count from 0 in a block.

    The address of another block of the cluster has its rank + 1 above bit 24.
    """

    def __init__(self, grid: Grid, size: int, grain: int, reporter: Reporter) -> None:
        self.grid = grid
        self.size = size
        self.stride = -(-max(size, 16) // 128) * 128
        total = grid.blocks * self.stride
        self.trash = total
        self.bytes = Bytes(total + _TRASH)
        self.reporter = reporter
        self.shadow = SharedShadow(-(-(total + _TRASH) // grain), grain, reporter.order, reporter)

    def locate(self, lanes: Lanes, addresses: Array, size: int, what: str) -> tuple[Array, bool]:
        """Positions of accesses, and whether all are right."""
        block = self.grid.block_of[lanes.index]
        offset = addresses & ((1 << CLUSTER_SHIFT) - 1)
        rank = addresses >> CLUSTER_SHIFT
        if rank.any():
            cluster = self.grid.cluster[0] * self.grid.cluster[1] * self.grid.cluster[2]
            remote = block // cluster * cluster + rank - 1
            block = np.where(rank > 0, remote, block)
            bad_rank = (rank > cluster) | (rank < 0)
            offset = np.where(bad_rank, self.size, offset)
            block = np.where(bad_rank, 0, block)
        wrong = offset + size > self.size
        skewed = offset % min(size, 16)
        if not (wrong.any() or skewed.any()):
            return block * self.stride + offset, True
        if wrong.any():
            at = int(addresses[wrong][0])
            text = f"{what} of {size} bytes at byte {at} of {self.size} of shared memory"
            self.reporter.add(Kind.BOUNDS, text, "shared")
        skewed_only = (skewed != 0) & ~wrong
        if skewed_only.any():
            at = int(addresses[skewed_only][0])
            text = f"{what} of {size} bytes at byte {at} of shared memory"
            self.reporter.add(Kind.ALIGNMENT, text, "shared")
        bad = wrong | (skewed != 0)
        return np.where(bad, self.trash, block * self.stride + offset), False

    def load(self, lanes: Lanes, addresses: Array, size: int, *, strong: bool = False) -> Array:
        """uint8[lanes, size]."""
        positions, right = self.locate(lanes, addresses, size, "a read")
        if right and not self._is_remote(addresses):
            self.shadow.read(lanes.numbers, self.shadow.cells(positions, size), strong=strong)
        return self.bytes.gather(positions, size)

    def store(self, lanes: Lanes, addresses: Array, values: Array, *, strong: bool = False) -> None:
        """Write uint8[lanes, size]."""
        size = values.shape[1]
        positions, right = self.locate(lanes, addresses, size, "a write")
        if not right:
            self.bytes.scatter(positions, values)
            return
        cells = self.shadow.cells(positions, size)
        if self._is_remote(addresses):
            self.shadow.forget(cells)
            self.bytes.scatter(positions, values)
            return
        stamp = self.shadow.write(lanes.numbers, cells, strong=strong)
        self.bytes.scatter(positions, values)
        left = self.shadow.writes[cells]
        if (left != stamp).any():
            different = (self.bytes.gather(positions, size) != values).any()
            self.shadow.collide(left, stamp, different=bool(different))

    @staticmethod
    def _is_remote(addresses: Array) -> bool:
        """Whether an access may be to another block, whose races are not looked for."""
        return bool((addresses >> CLUSTER_SHIFT).any())


class PrivateMemory:
    """Memory of each thread (local), or one that all read (parameters: `shared_by_all`)."""

    def __init__(self, grid: Grid, size: int, name: str, *, shared_by_all: bool = False) -> None:
        self.grid = grid
        self.size = size
        self.name = name
        self.stride = 0 if shared_by_all else -(-max(size, 16) // 16) * 16
        self.trash = self.stride * grid.threads or -(-max(size, 16) // 16) * 16
        self.bytes = Bytes(self.trash + _TRASH)
        self.defined = np.full(len(self.bytes.data), shared_by_all)
        self.reporter: Reporter | None = None

    def _locate(self, lanes: Lanes, addresses: Array, size: int, what: str) -> Array:
        wrong = (addresses < 0) | (addresses + size > self.size) | (addresses % min(size, 16) != 0)
        base = self.grid.numbers[lanes.index] * self.stride
        if wrong.any():
            assert self.reporter is not None
            at = int(addresses[wrong][0])
            text = f"{what} of {size} bytes at byte {at} of {self.size} of {self.name} memory"
            self.reporter.add(Kind.BOUNDS, text, self.name)
            return np.where(wrong, self.trash, base + addresses)
        return base + addresses

    def load(self, lanes: Lanes, addresses: Array, size: int, *, strong: bool = False) -> Array:
        """uint8[lanes, size]."""
        del strong
        positions = self._locate(lanes, addresses, size, "a read")
        if not self.defined[positions].all():
            assert self.reporter is not None
            text = f"reads {self.name} memory that nothing wrote"
            self.reporter.add(Kind.UNINITIALIZED, text, self.name)
        return self.bytes.gather(positions, size)

    def store(self, lanes: Lanes, addresses: Array, values: Array, *, strong: bool = False) -> None:
        """Write uint8[lanes, size]."""
        del strong
        size = values.shape[1]
        positions = self._locate(lanes, addresses, size, "a write")
        self.bytes.scatter(positions, values)
        self.defined[positions[:, None] + np.arange(size)] = True
