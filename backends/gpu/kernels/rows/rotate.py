"""Norms of heads, rotary embedding and what is written to the cache, of one layer, in one launch.

A warp has a head of a token. Which part of the work a head belongs to, its number says: parts are
queries, keys and values, one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import Value, f32
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.attention.coded import exact_slot
from nybble.backends.gpu.kernels.instructions import butterfly
from nybble.backends.gpu.kernels.rows.machine import WARPS, RowKernel, Rows, RowSpec, buffer
from nybble.backends.gpu.kernels.rows.norm import NormBefore

LANES = 32


@dataclass(frozen=True)
class Part:
    """x f32 [tokens, heads * head_dim] to y of the same shape, or to rows of a cache.

    norm: of each head, before. rotates: whether heads are turned by their position (half-split
    form). cached: whether head h of token t goes to row `position + t` of [heads, context,
    head_dim]. output: the type of y. ring: where it is not 0, the cache has so
    many rows and `pinned` more, see `attention.coded`.
    """

    heads: int
    rotates: bool = True
    cached: bool = False
    norm: NormBefore | None = None
    output: str = "f16"
    ring: int = 0
    pinned: int = 0


@dataclass(frozen=True)
class RotateSpec(RowSpec):
    """Parts, of `tokens` tokens, the first of which is at the position in a buffer.

    context: rows of the caches, and those of the tables, f32 [context, head_dim / 2], that are
    read; a token past them leaves nothing.
    """

    tokens: int
    head_dim: int
    context: int
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """What it is for; specs that differ in norms or in rings alone share it."""
        heads = "_".join(str(one.heads) for one in self.parts)
        kind = "rotate" if self.rotates else "append"
        return f"{kind}_{self.tokens}x{heads}x{self.head_dim}_{self.context}"

    @property
    def rotates(self) -> bool:
        """Whether anything is turned."""
        return any(one.rotates for one in self.parts)

    @property
    def heads(self) -> int:
        """Heads of a token, of all parts."""
        return sum(one.heads for one in self.parts)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """position; cos and sin where something turns; x, norm and y of each part, numbered."""
        half = self.head_dim // 2
        tables = [buffer(one, "f32", Access.READ, self.context, half) for one in ("cos", "sin")]
        found = [buffer("position", "i32", Access.READ, 1, 1), *(tables if self.rotates else ())]
        for number, part in enumerate(self.parts):
            columns = part.heads * self.head_dim
            found.append(buffer(f"x{number}", "f32", Access.READ, self.tokens, columns))
            if part.norm is not None:
                found.append(buffer(f"norm{number}", "f32", Access.READ, 1, self.head_dim))
            if part.cached:
                rows = part.ring + part.pinned if part.ring else self.context
                found.append(buffer(f"y{number}", part.output, Access.UPDATE, rows, columns))
            else:
                found.append(buffer(f"y{number}", part.output, Access.WRITE, self.tokens, columns))
        return tuple(found)


def rotate_kernel(spec: RotateSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a warp for each head of each token."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    at = dict(zip((one.name for one in spec.parameters), b.parameters, strict=True))
    number = b.block_id() * WARPS + b.thread().shr(5)
    heads = b.const(spec.heads, i32)
    token, head = (b.binary(kind, number, heads) for kind in ("udiv", "urem"))
    place = b.load(at["position"], i32) + token
    first = 0
    for index, part in enumerate(spec.parts):
        mine = (head >= first) & (head < first + part.heads) & (place < spec.context)
        with b.if_(mine & (token < spec.tokens)):
            Head(b, spec, part, at, index).write(token, place, head - first)
        first += part.heads
    return RowKernel(b, spec.parameters, -(-spec.tokens * spec.heads // WARPS))


class Head:
    """Writes what a warp does with a head of a part."""

    def __init__(
        self, b: GpuBuilder, spec: RotateSpec, part: Part, at: dict[str, Value], index: int
    ) -> None:
        self.b, self.spec, self.part = b, spec, part
        self.x = Rows(b, at[f"x{index}"], "f32", spec.head_dim)
        self.y = Rows(b, at[f"y{index}"], part.output, spec.head_dim)
        self.norm = at.get(f"norm{index}")
        self.tables = [Rows(b, at[one], "f32", spec.head_dim // 2) for one in ("cos", "sin")
                       if one in at]  # fmt: skip
        self.columns = -(-spec.head_dim // 2 // LANES)

    def write(self, token: Value, place: Value, head: Value) -> None:
        """Read a head of a token, norm it, turn it and put it where it belongs."""
        b, half = self.b, self.spec.head_dim // 2
        row = token * self.part.heads + head
        target = self.cached(head, place) if self.part.cached else row
        lane = b.thread() & (LANES - 1)
        columns = [b.min(lane + LANES * i, half - 1) for i in range(self.columns)]
        pairs = [[self.x.read(row, column + more) for more in (0, half)] for column in columns]
        pairs = self.normed(pairs, columns, lane)
        for i, (column, pair) in enumerate(zip(columns, pairs, strict=True)):
            first, second = self.turned(pair, place, column)
            with b.if_(lane + LANES * i < half):
                self.y.write(target, column, first)
                self.y.write(target, column + half, second)

    def cached(self, head: Value, place: Value) -> Value:
        """The row of a cache that a head of a token goes to."""
        part = self.part
        if not part.ring:
            return head * self.spec.context + place
        return head * (part.ring + part.pinned) + exact_slot(self.b, place, part.ring, part.pinned)

    def normed(
        self, pairs: list[list[Value]], columns: Sequence[Value], lane: Value
    ) -> list[list[Value]]:
        """The head's numbers after its norm, if it has one."""
        b, norm = self.b, self.part.norm
        if norm is None or self.norm is None:
            return pairs
        half, nothing = self.spec.head_dim // 2, self.b.const(0.0, f32)
        total = nothing
        for i, pair in enumerate(pairs):
            inside = lane + LANES * i < half
            for value in pair:
                total = b.fma(value, b.select(inside, value, nothing), total)
        for distance in (16, 8, 4, 2, 1):
            total = total + butterfly(b, total, distance)
        factor = 1.0 / b.sqrt(total / float(self.spec.head_dim) + norm.eps)
        weight = Rows(b, self.norm, "f32", self.spec.head_dim)
        made: list[list[Value]] = []
        for column, pair in zip(columns, pairs, strict=True):
            scales = [weight.read(0, column + more) for more in (0, half)]
            scales = [one + 1.0 if norm.unit_offset else one for one in scales]
            made.append([x * factor * s for x, s in zip(pair, scales, strict=True)])
        return made

    def turned(self, pair: list[Value], place: Value, column: Value) -> list[Value]:
        """Two numbers of a head after the rotation, if there is one."""
        if not self.part.rotates:
            return pair
        (first, second), (cos, sin) = pair, (one.read(place, column) for one in self.tables)
        return [first * cos - second * sin, second * cos + first * sin]
