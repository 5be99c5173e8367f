"""What processing elements share: who may go, which outputs a cycle works on.

A tile is `limit + 1` cycles of weights against one set of activations. Activations come `group` at
a time (`a`, taken where `a_take` is set), weights of one cycle at a time (`w`, taken where
`w_ready` and `w_valid` are set) with flags: `first` starts sums from zero, `last` gives them out as
`y`, one cycle of `rows` sums at a time while `y_valid` is set; nothing holds `y` back. A sparse
element takes the next activations with the flag `next` instead of after `limit + 1` cycles. `rst`
must be held for 64 cycles, so that what was on its way is gone.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nybble.backends.fpga.rtl.emit import Module, Wire
from nybble.backends.fpga.rtl.spec import PeSpec

FLAGS = ("first", "last", "next")
"""Bits of `w_flags`, lowest first."""


@dataclass(frozen=True)
class Ports:
    """The inputs of a processing element; `w` is plain bits."""

    reset: Wire
    a: Wire
    a_valid: Wire
    w: Wire
    w_valid: Wire
    w_first: Wire
    w_last: Wire
    w_next: Wire
    limit: Wire


def ports(top: Module, a_bits: int, w_bits: int, limit_bits: int) -> Ports:
    """Declares the inputs of a processing element."""
    plain = [
        top.input(name, width)
        for name, width in (
            ("rst", 1), ("a", a_bits), ("a_valid", 1), ("w", w_bits), ("w_valid", 1),
            ("w_flags", len(FLAGS)), ("limit", limit_bits),
        )
    ]  # fmt: skip
    reset, a, a_valid, w, w_valid, flags, limit = plain
    first, last, then = (top.extract(flags, at, 1) for at in range(len(FLAGS)))
    return Ports(reset, a, a_valid, w, w_valid, first, last, then, limit)


def tile_ports(top: Module, spec: PeSpec, w_bits: int) -> Ports:
    """Declares the inputs of an element that keeps a tile of activations."""
    limit_bits = (spec.depth - 1).bit_length()
    return ports(top, spec.group * spec.activation_bits, w_bits, limit_bits)


def counter(module: Module, limit: Wire, enable: Wire, reset: Wire) -> tuple[Wire, Wire]:
    """A count that goes from 0 to `limit` and over again, and whether it is at the limit."""
    after = module.forward(0, limit.high)
    count = module.register(after, enable, reset)
    at_limit = module.equal(count, limit)
    up = module.extract(module.add(count, module.constant(1, 1)), 0, count.width)
    module.define(after, module.choose(at_limit, module.zero(count), up))
    return count, at_limit


def accumulated(
    top: Module, spec: PeSpec, given: Ports, fire: Wire, row_sums: "RowSums"
) -> tuple[list[Wire], Wire]:
    """The sums over tiles of each row, and whether they are the last of their outputs.

    fire: weights are taken; row_sums: makes the rows, given the sums so far.
    """
    early = top.delay(fire, row_sums.latency - 1)
    going = top.register(early)
    first = top.delay(top.both(fire, given.w_first), row_sums.latency)
    last = top.delay(top.both(fire, given.w_last), row_sums.latency)
    read, _ = counter(top, given.limit, early, given.reset)
    write = top.delay(read, 2)
    width = spec.accumulator_bits
    after = top.forward(0, (1 << (width * spec.rows)) - 1)
    [before] = top.memory(spec.depth, top.register(going), write, after, [read], late=True)
    so_far = [top.extract(before, width * row, width) for row in range(spec.rows)]
    sums = row_sums.rows(so_far, first)
    top.define(after, top.concat(sums))
    return sums, top.register(last)


class RowSums(ABC):
    """The part of a processing element that differs: products and their sum over a tile.

    latency: cycles from the weights to the sum of a tile.
    """

    latency: int

    @abstractmethod
    def rows(self, so_far: list[Wire], first: Wire) -> list[Wire]:
        """The sum so far, or zero if `first`, plus that of this tile: `latency + 1` cycles late."""


def accumulator(module: Module, spec: PeSpec, tile: Wire, so_far: Wire, first: Wire) -> Wire:
    """The register that ends a row: tile + (first ? 0 : so_far), modulo its width."""
    kept = module.both(so_far, module.repeat(module.invert(first), so_far.width))
    total = module.add(kept, Wire(module.extend(tile, so_far.width).name, 0, kept.high))
    return module.register(module.extract(total, 0, so_far.width))
