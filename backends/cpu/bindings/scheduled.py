"""Kernels whose sizes are fields of their specification, set by a schedule."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.bindings.site import Kernel
from nybble.backends.cpu.kernels.attention import Attention
from nybble.backends.cpu.kernels.attention_shape import RegisterTile
from nybble.backends.cpu.kernels.builder import BufferSpec
from nybble.backends.cpu.kernels.kv import KEY_BLOCK, PADDING
from nybble.backends.cpu.schedule_space import (
    Bound,
    Choices,
    Options,
    Size,
    Space,
    divisors,
    powers,
)

LANES = (8, 16, 32)
MOST_SUMS = 32
"""Vectors of 16 sums in a register tile of attention: more are all spilled."""


@dataclass(frozen=True)
class Scheduled:
    """A kernel and what a schedule could have chosen instead."""

    kernel: Kernel
    space: Choices

    @property
    def buffers(self) -> list[BufferSpec]:
        """Those of the kernel."""
        return self.kernel.buffers

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        return self.kernel.build(name)


class RowKernel(Kernel, Protocol):
    """A kernel that works on vectors of `lanes` f32."""

    @property
    def lanes(self) -> int:
        """See `LANES`."""
        ...


def _lanes(spec: RowKernel) -> Sequence[int]:
    """Vectors that divide a group, where the kernel has groups."""
    group = getattr(spec, "group", LANES[-1])
    return [lanes for lanes in LANES if group % lanes == 0]


_LANES: Size[Any] = Size("lanes", "f32 lanes of a vector", _lanes, lambda spec: spec.lanes)
_CHAINS: Size[Any] = Size(
    "chains", "sums that squares are added to in turn", lambda _: (1, 2, 4, 8), lambda s: s.chains
)
ROWS: Space[Any] = Space((_LANES,))
NORMS: Space[Any] = Space((_LANES, _CHAINS))


def scheduled(kernel: RowKernel, space: Space[Any], options: Options) -> Scheduled:
    """The kernel with the sizes of a schedule in its fields; raises ScheduleError."""
    chosen = space.settle(kernel, options)
    made: Any = kernel
    return Scheduled(replace(made, **chosen), Bound(space, kernel))


def _key_blocks(spec: Attention) -> Sequence[int]:
    """Blocks of which a whole number makes an entry of any list, and a page of codes.

    Integers are those of a block, so that there is no choice.
    """
    if spec.integers:
        return [spec.key_block]
    page = PADDING if spec.pages is None else spec.pages.format.page
    sizes = divisors(page, PADDING, KEY_BLOCK)
    return [size for size in sizes if all(one.selection.size % size == 0 for one in spec.lists)]


def _rows(spec: Attention) -> int:
    return spec.group * (spec.row_block or spec.default_row_block)


def _conflict(spec: Attention, chosen: Options) -> str | None:
    rows = spec.group * chosen["row_block"]
    vectors = chosen["key_block"] // KEY_BLOCK
    if rows % chosen["row_tile"]:
        return f"register tiles of {chosen['row_tile']} rows for {rows} query rows"
    if vectors % chosen["key_vectors"]:
        return f"{chosen['key_vectors']} vectors of keys for a block of {vectors}"
    sums = chosen["row_tile"] * max(chosen["key_vectors"], chosen["value_vectors"])
    return f"{sums} vectors of sums, at most {MOST_SUMS}" if sums > MOST_SUMS else None


ATTENTION: Space[Attention] = Space(
    (
        Size(
            "key_block",
            "keys of a block",
            _key_blocks,
            lambda spec: spec.key_block,
        ),
        Size(
            "row_block",
            "positions of a tile",
            lambda spec: (1,) if spec.rows == 1 else powers(32, 2),
            lambda spec: spec.default_row_block,
        ),
        Size(
            "row_tile",
            "query rows of a register tile",
            lambda spec: divisors(_rows(spec), 8),
            lambda spec: spec.shape.row_tile,
        ),
        Size(
            "key_vectors",
            "vectors of 16 keys in a register tile of scores",
            lambda _: powers(PADDING // KEY_BLOCK),
            lambda spec: spec.shape.key_vectors,
        ),
        Size(
            "value_vectors",
            "vectors of 16 components in a register tile of sums",
            lambda spec: divisors(spec.cache.head_dim // KEY_BLOCK, 8),
            lambda spec: spec.shape.value_vectors,
        ),
    ),
    _conflict,
)


def scheduled_attention(kernel: Attention, options: Options) -> tuple[Attention, Choices]:
    """The kernel with the sizes of a schedule, and the space; raises ScheduleError."""
    chosen = ATTENTION.settle(kernel, options)
    tile = RegisterTile(chosen["row_tile"], chosen["key_vectors"], chosen["value_vectors"])
    made = replace(
        kernel, key_block=chosen["key_block"], row_block=chosen["row_block"], registers=tile
    )
    return made, Bound(ATTENTION, kernel)
