"""Instructions of a stream, each with what it reads and writes; and room in the buffers."""

from collections.abc import Sequence
from dataclasses import dataclass

from nybble.backends.fpga.isa.emitter import Access, Emitter
from nybble.backends.fpga.isa.instructions import (
    ACTIONS,
    BLOCK,
    BUFFERS,
    LINE,
    OPERATIONS,
    SPACES,
    STORES,
)
from nybble.backends.fpga.isa.memory import Ring, Room
from nybble.backends.fpga.isa.plan import PARAM_BYTES, VALUE_BYTES, Plan

VALUE_LINES = BLOCK * VALUE_BYTES // LINE
"""Lines of memory of a block of values."""


@dataclass(frozen=True)
class Step:
    """What a stream computes: `tiles` times `tokens` new tokens, the last seeing `context`.

    merged: one instruction moves data through all channels of a region; else one for each channel.
    shared: all layers run the same instructions; else each has its own.
    """

    tokens: int
    tiles: int
    context: int
    merged: bool = True
    shared: bool = True

    @property
    def decodes(self) -> bool:
        """Whether one token is written."""
        return self.tokens == 1


@dataclass(frozen=True)
class Place:
    """Values or codes of a tile of tokens: a block, and blocks of each token."""

    at: int
    blocks: int


class Writer:
    """Writes a stream for a tile of tokens.

    tokens: of a tile; product: the unit of products of that many. hidden: the values that layers
    add to. table: line of the rotations of the tile's tokens.
    """

    def __init__(self, plan: Plan, step: Step, emitter: Emitter):
        machine = plan.machine
        self.plan, self.step, self.emitter = plan, step, emitter
        name = machine.target.name
        self.ring = Ring(machine.weights // LINE, name)
        self.values = Room("values", machine.values // (BLOCK * VALUE_BYTES), name)
        self.codes = Room("activations", machine.activations // BLOCK, name)
        self.params = Room("params", machine.params // LINE, name)
        self.product = "mv" if step.decodes else "mm"
        self.tokens = step.tokens
        self.first = 0
        norms = max(plan.params_bytes, plan.logits_at - plan.last_params_at)
        place = self.params.take(norms // LINE)
        assert place == 0, "products with caches find their scales in line 0"
        self.table = self.params.take(step.tokens * plan.sizes.head * PARAM_BYTES // LINE)
        self.hidden = Place(self.take(plan.slice), plan.slice // BLOCK)

    def take(self, elements: int) -> int:
        return self.values.take(elements // BLOCK * self.tokens)

    def codes_for(self, blocks: int) -> Place:
        return Place(self.codes.take(blocks * self.tokens), blocks)

    def shared(self, place: Place) -> Place:
        """The slices of all regions, one after another, in each of them."""
        blocks = place.blocks * self.plan.machine.regions
        whole = Place(self.take(blocks * BLOCK), blocks)
        self.store("share", whole.at, place)
        return whole

    @property
    def log_tokens(self) -> int:
        return self.tokens.bit_length() - 1

    def control(self, action: str, value: int) -> None:
        self.emitter.barrier({"action": ACTIONS.index(action), "value": value})

    def load(
        self, buffer: str, space: str, address: int, length: int, target: int,
        loops: int = 1, stride: int = 0,
    ) -> None:  # fmt: skip
        """Move `loops` runs of `length` bytes to a place of a buffer; split if not merged."""
        unit = BLOCK * VALUE_BYTES if buffer == "values" else LINE
        fixed = {"buffer": BUFFERS.index(buffer), "space": SPACES.index(space), "outer": 1}
        pieces = _split(length, loops, stride, self._channels())
        for channel, (skip, run, times) in enumerate(pieces):
            number = channel + 1 if len(pieces) > 1 else 0
            at = target + skip[1] // unit
            size = run * times // unit
            tracked = [] if space in ("layer", "position") else [self._memory(space, address)]
            self.emitter.emit(
                "ld",
                {**fixed, "channel": number, "address": (address + skip[0]) // LINE,
                 "length": run, "loops": times, "stride": stride, "target": at},
                reads=tracked, writes=[Access(buffer, at, at + size)],
            )  # fmt: skip

    def _channels(self) -> int:
        return 1 if self.step.merged else self.plan.machine.channels

    def _memory(self, space: str, address: int) -> Access:
        """Memory that stores may have written: caches as two wholes, the rest by address."""
        if space == "cache":
            half = int(address >= self.plan.values_at)
            return Access("cache", half, half + 1)
        stream = address < self.plan.tables_at
        return Access("memory", 0 if stream else address, 1 if stream else address + 1)

    def store(self, mode: str, address: int, place: Place, space: str = "shared") -> None:
        splits = self._channels() if mode == "memory" else 1
        pieces = _split(place.blocks * LINE, 1, 0, splits)
        for channel, (skip, run, _) in enumerate(pieces):
            start, blocks = skip[0] // LINE * self.tokens, run // LINE
            source = place.at + start
            write = self._memory(space, address * LINE)
            to, moved = address + start * VALUE_LINES, [write]
            if mode == "share":
                whole = blocks * self.tokens * self.plan.machine.regions
                moved = [Access("values", address, address + whole)]
            self.emitter.emit(
                "st",
                {"mode": STORES.index(mode), "space": SPACES.index(space),
                 "tokens": self.log_tokens, "address": to, "blocks": blocks, "source": source,
                 "channel": channel + 1 if len(pieces) > 1 else 0},
                reads=[Access("values", source, source + blocks * self.tokens)], writes=moved,
            )  # fmt: skip

    def emit_product(
        self, codes: int, output: int, shape: tuple[int, int], weights: tuple[int, int],
        writes: Sequence[Access], **values: int,
    ) -> None:  # fmt: skip
        rows, columns = shape[0] // BLOCK, shape[1] // BLOCK
        at, lines = weights
        params = [Access("params", 0, 1)] if values.get("source") else []
        self.emitter.emit(
            self.product,
            {**values, "weights": at, "activations": codes, "output": output,
             "columns": columns, "rows": rows, "tokens": self.log_tokens},
            reads=[Access("weights", at, at + lines), *params,
                   Access("activations", codes, codes + columns * self.tokens)],
            writes=writes,
        )  # fmt: skip

    def misc(
        self, operation: str, left: Place, output: Place, right: int = 0, coded: bool = False,
        params: bool = False, pair: bool = False,
    ) -> None:  # fmt: skip
        size = left.blocks * self.tokens
        reads = [Access("values", left.at, left.at + size)]
        if pair:
            reads.append(Access("values", right, right + size))
        if params:
            reads.append(Access("params", right, right + 1))
            reads.append(Access("params", 0, 1))
        buffer = "activations" if coded else "values"
        self.emitter.emit(
            "misc",
            {"operation": OPERATIONS.index(operation), "codes": int(coded), "blocks": left.blocks,
             "left": left.at, "right": right, "output": output.at, "tokens": self.log_tokens},
            reads=reads, writes=[Access(buffer, output.at, output.at + size)],
        )  # fmt: skip


def _split(
    length: int, loops: int, stride: int, pieces: int
) -> list[tuple[tuple[int, int], int, int]]:
    """A transfer in pieces: bytes to skip in memory and in the buffer, length and loops of each."""
    if loops > 1:
        each = -(-loops // pieces)
        starts = range(0, loops, each)
        return [((at * stride, at * length), length, min(each, loops - at)) for at in starts]
    each = -(-length // (pieces * LINE)) * LINE
    return [((at, at), min(each, length - at), 1) for at in range(0, length, each)]
