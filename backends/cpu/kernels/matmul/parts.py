"""The share of a thread: a contiguous run of the tiles of all parts, one after the other."""

from collections.abc import Callable, Iterator
from functools import partial

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.loops import for_each_few
from nybble.backends.cpu.kernels.matmul.spec import ProductSpec


def for_each_run(
    b: KernelBuilder,
    spec: ProductSpec,
    most: int,
    body: Callable[[tuple[int, ...], Value, Value], None],
) -> None:
    """Run `body(parts, tile, count)` over this thread's tiles, at most `most` at a time.

    `parts` are those whose tiles make one output: see `ProductSpec.joined`.
    """
    for parts, start, stop in _shares(b, spec):
        with b.for_(start, stop, most) as run:
            body(parts, run.iv, b.min(stop - run.iv, most) if most > 1 else b.const(1))


def for_each_group(
    b: KernelBuilder,
    spec: ProductSpec,
    size: int,
    body: Callable[[int, list[Value]], None],
) -> None:
    """Run `body(part, tiles)` over this thread's tiles: `size` of them, and one by one at the end.

    The body is written out twice, unless `size` is 1. All tiles of a part come before those of the
    next, also where parts make one output.
    """
    runs = [(part, *run) for parts, *run in _shares(b, spec) for part in parts]
    for part, start, stop in runs:
        for_each_few(b, (start, stop), size, partial(body, part))


def _shares(b: KernelBuilder, spec: ProductSpec) -> Iterator[tuple[tuple[int, ...], Value, Value]]:
    """Of each output: its parts, this thread's first tile, and that after its last."""
    counts = [spec.layouts[parts[0]].tiles for parts in spec.joined]
    lo, hi = b.partition(sum(counts))
    first = 0
    for parts, count in zip(spec.joined, counts, strict=True):
        # indices are unsigned: clamp before subtracting
        start = b.min(b.max(lo, first), first + count) - first
        yield parts, start, b.min(b.max(hi, first), first + count) - first
        first += count
