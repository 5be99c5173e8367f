"""Products of tiles of rows that go side by side, whatever multiplies them.

Tiles side by side share what is loaded of the activations, and the processor then has several
streams of memory to fetch ahead of, where it fetches each only so far: see `Isa.streams`. Parts of
a gated pair go one after the other, so that each is one stream; meanwhile the outputs hold what the
first has made.
"""

from collections.abc import Callable, Sequence

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.adding import Corrected
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.parts import for_each_group
from nybble.backends.cpu.kernels.matmul.spec import ProductSpec
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE

Sums = Callable[[int, Sequence[Value], Value], Sequence[Value]]
"""(part, tiles, token) -> f32 lanes of the sub-tiles of the first tile, then of the next."""


def streams(spec: ProductSpec) -> int:
    """Tiles that go side by side where nothing else is asked for."""
    return min(spec.isa.streams, spec.layouts[0].tiles)


def multiply(b: KernelBuilder, spec: ProductSpec, size: int, sums: Sums) -> None:
    """Emit the products of this thread's tiles, `size` of them side by side, token by token."""
    epilogue = Epilogue(b, spec)
    corrected = Corrected(b, spec) if spec.added else None

    def finish(part: int, tiles: Sequence[Value], token: Value) -> None:
        found = sums(part, tiles, token)
        for index, tile in enumerate(tiles):
            own = found[SUBTILES * index : SUBTILES * (index + 1)]
            if corrected is not None:
                own = corrected(part, tile, own)
            for r in range(SUBTILES):
                epilogue.finish(part, token, tile * TILE + r * LANES, (own[r],))

    def body(part: int, tiles: Sequence[Value]) -> None:
        if spec.tokens == 1:
            finish(part, tiles, b.const(0))
            return
        with b.for_(0, b.n) as token:
            finish(part, tiles, token.iv)

    for_each_group(b, spec, size, body)
