"""The share of a thread: a contiguous run of the tiles of all parts, one after the other."""

from collections.abc import Callable

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec


def for_each_tile(
    b: KernelBuilder, spec: MatmulSpec, body: Callable[[tuple[int, ...], Value], None]
) -> None:
    """Run `body(parts, tile)` for this thread's tiles; `parts` is (0, 1) with a gate, else one."""
    groups = [(0, 1)] if spec.glu else [(i,) for i in range(len(spec.rows))]
    tiles = [spec.layouts[parts[0]].tiles for parts in groups]
    lo, hi = b.partition(sum(tiles))
    first = 0
    for parts, count in zip(groups, tiles, strict=True):
        # max and min on what may be negative: indices are unsigned, so clamp before subtracting
        start = b.min(b.max(lo, first), first + count) - first
        stop = b.min(b.max(hi, first), first + count) - first
        with b.for_(start, stop) as loop:
            body(parts, loop.iv)
        first += count
