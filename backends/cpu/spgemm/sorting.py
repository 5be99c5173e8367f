"""The columns of a row in ascending order: radix sort of the list in a thread's memory."""

from collections.abc import Callable

from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i64, vec
from nybble.backends.cpu.spgemm.accumulator import RowOf
from nybble.backends.cpu.spgemm.frame import RADIX, RADIX_BITS, Frame


def sorted_list(f: Frame, count: Value, row: RowOf) -> Buffer:
    """The first `count` of the part `list`, all different, sorted where they are.

    Least significant digit first, two digits a round so that they end where they began; as many
    rounds as the window of the row is wide.
    """
    b = f.b
    listed, other = f.part("list", f.spec.index), f.part("other", f.spec.index)
    low, high = (f.part("counts", i64).part(first * RADIX, RADIX) for first in (0, 1))
    with b.while_([b.const(0)], lambda carried: (row.width >> carried[0]) > 0) as round_:
        shift = round_.args[0]

        def lower(key: Value) -> Value:
            return ((b.to_index(key) - row.low) >> shift) & (RADIX - 1)

        def upper(key: Value) -> Value:
            return ((b.to_index(key) - row.low) >> (shift + RADIX_BITS)) & (RADIX - 1)

        with b.for_(0, 2 * RADIX, 4) as each:
            low.vstore(b.const(0, vec(4, i64)), each.iv)
        with b.for_(0, count) as each:
            key = listed.load(each.iv)
            for counts, digit in ((low, lower(key)), (high, upper(key))):
                counts.store(counts.load(digit) + 1, digit)
        with b.for_(0, RADIX, inits=[b.const(0, i64), b.const(0, i64)]) as each:
            sums: list[Value] = []
            for counts, before in zip((low, high), each.args, strict=True):
                here = counts.load(each.iv)
                counts.store(before, each.iv)
                sums.append(before + here)
            each.yield_(*sums)
        _distribute(b, count, (listed, other), low, lower)
        _distribute(b, count, (other, listed), high, upper)
        round_.yield_(shift + 2 * RADIX_BITS)
    return listed


def _distribute(
    b: KernelBuilder,
    count: Value,
    lists: tuple[Buffer, Buffer],
    places: Buffer,
    digit: Callable[[Value], Value],
) -> None:
    source, target = lists
    with b.for_(0, count) as each:
        key = source.load(each.iv)
        at = digit(key)
        to = places.load(at)
        places.store(to + 1, at)
        target.store(key, b.to_index(to))
