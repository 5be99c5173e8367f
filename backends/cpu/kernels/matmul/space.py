"""The sizes that a schedule chooses of the kernels of products: see `schedule_space`.

| kernel | sizes |
|---|---|
| `gemv`: one token, integer dot products | steps, subtiles, runs, prefetch, tiles |
| `gemv_f32`: one token, decoded weights | columns, chains, groups, prefetch |
| `gemm`: many tokens | k_block, row_tiles, subtiles, token_tile, unroll, tokens_outer, prefetch |
| `lut`: lookup tables | registers, chunks, groups, prefetch |

`prefetch` counts bytes, and with many tokens blocks of columns; each row says the rest.
"""

from collections.abc import Sequence
from dataclasses import replace

from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.kernels.matmul.gemm import GemmTiles
from nybble.backends.cpu.kernels.matmul.gemm_dot import dot_tiles
from nybble.backends.cpu.kernels.matmul.gemm_f32 import f32_tiles
from nybble.backends.cpu.kernels.matmul.gemv import GemvTiles, gemv_runs, gemv_steps, gemv_tiles
from nybble.backends.cpu.kernels.matmul.gemv_f32 import GemvF32Tiles, gemv_f32_tiles
from nybble.backends.cpu.kernels.matmul.lookup import row_registers
from nybble.backends.cpu.kernels.matmul.lut import LutTiles, lut_tiles
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.lut_packing import CHUNK
from nybble.backends.cpu.schedule_space import Options, Size, Space, divisors, powers
from nybble.backends.cpu.tile_layout import SUBTILES, TILE, TileLayout

BYTES_AHEAD = (0, 1024, 2048, 4096, 8192, 16384)
MOST_COLUMNS = 2048
"""Columns of the largest block: 128 KiB of unpacked codes in a tile."""
MOST_SCRATCH = 1 << 20
"""Bytes of unpacked weights, all that a thread may keep of an L2 beside sums and activations."""
MOST_SUMS = 16
"""Sub-tiles times tokens of a register tile: more are all spilled."""
MOST_UNROLLED = 64
"""Sub-tiles times tokens times steps that are written out: code that stays in the L1."""
MOST_STREAMS = 4
"""Tiles that are read side by side."""
MOST_WRITTEN = 32
"""The same of a product with one token: vectors of codes."""


def _group(spec: MatmulSpec) -> int:
    return spec.weight.group if isinstance(spec.weight, Codes) else 1


def _default_tiles(spec: MatmulSpec) -> GemmTiles:
    return dot_tiles(spec) if spec.activations == "a8" else f32_tiles(spec.isa)


def _steps(spec: MatmulSpec, columns: int) -> int:
    """Steps of the innermost loop: four columns of integers, one of floats."""
    return spec.activation_group // 4 if spec.activations == "a8" else columns


def _default_block(spec: MatmulSpec) -> int:
    return divisor(spec.cols, _default_tiles(spec).columns, _group(spec))


def _row_tiles(spec: MatmulSpec) -> Sequence[int]:
    return powers(max(1, min(4, max(layout.tiles for layout in spec.layouts))))


def _gemm_conflict(spec: MatmulSpec, chosen: Options) -> str | None:
    sums = chosen["subtiles"] * chosen["token_tile"]
    width = 1 if spec.activations == "a8" else 4
    unpacked = chosen["k_block"] * TILE * width * chosen["row_tiles"]
    if sums > MOST_SUMS:
        return f"{sums} sub-tiles times tokens, at most {MOST_SUMS}"
    if sums * chosen["unroll"] > MOST_UNROLLED:
        return f"{sums * chosen['unroll']} unrolled products, at most {MOST_UNROLLED}"
    if chosen["k_block"] % chosen["unroll"] and spec.activations != "a8":
        return f"{chosen['unroll']} columns a round, blocks of {chosen['k_block']}"
    return (
        f"{unpacked} bytes of scratch, at most {MOST_SCRATCH}" if unpacked > MOST_SCRATCH else None
    )


GEMM: Space[MatmulSpec] = Space(
    (
        Size(
            "k_block",
            "columns that are unpacked at once",
            lambda spec: divisors(spec.cols, MOST_COLUMNS, _group(spec), 64),
            _default_block,
        ),
        Size("row_tiles", "tiles of 64 rows that are unpacked at once", _row_tiles, lambda _: 1),
        Size(
            "subtiles",
            "sub-tiles of 16 rows in a register tile",
            lambda _: powers(SUBTILES),
            lambda spec: _default_tiles(spec).subtiles,
        ),
        Size(
            "token_tile",
            "tokens in a register tile",
            lambda _: powers(8),
            lambda spec: _default_tiles(spec).tokens,
        ),
        Size(
            "unroll",
            "steps of the innermost loop that are written out",
            lambda spec: divisors(_steps(spec, 16), 16),
            lambda spec: divisor(_steps(spec, _default_block(spec)), _default_tiles(spec).unroll),
        ),
        Size("tokens_outer", "1 to go through the tokens first", lambda _: (0, 1), lambda _: 0),
        Size("prefetch", "blocks that are fetched ahead", lambda _: (0, 1), lambda _: 1),
    ),
    _gemm_conflict,
)


def gemm_tiles(chosen: Options) -> GemmTiles:
    """The sizes of a settled choice."""
    return GemmTiles(
        columns=chosen["k_block"],
        tiles=chosen["row_tiles"],
        subtiles=chosen["subtiles"],
        tokens=chosen["token_tile"],
        unroll=chosen["unroll"],
        ahead=chosen["prefetch"],
        tokens_outer=bool(chosen["tokens_outer"]),
    )


def _gemv_conflict(spec: MatmulSpec, chosen: Options) -> str | None:
    layout = spec.layouts[0]
    assert isinstance(layout, TileLayout)
    whole = chosen["steps"] == gemv_steps(spec)
    inside = layout.group // spec.activation_group * layout.count
    if chosen["runs"] > 1 and (not whole or inside > 1):
        return f"{chosen['runs']} groups a round where a group is a loop itself"
    written = chosen["steps"] * chosen["runs"] * chosen["tiles"] * layout.step_bytes // 64
    return f"{written} vectors, at most {MOST_WRITTEN}" if written > MOST_WRITTEN else None


GEMV: Space[MatmulSpec] = Space(
    (
        Size(
            "steps",
            "steps of the layout that are written out",
            lambda spec: divisors(gemv_steps(spec), 16),
            lambda spec: gemv_tiles(spec).steps,
        ),
        Size(
            "subtiles",
            "sub-tiles of 16 rows that a loop keeps sums of",
            lambda _: powers(SUBTILES),
            lambda spec: gemv_tiles(spec).subtiles,
        ),
        Size(
            "runs",
            "groups in a round of the outer loop",
            lambda spec: divisors(gemv_runs(spec), 4),
            lambda _: 1,
        ),
        Size(
            "prefetch",
            "bytes from what is read to what is fetched",
            lambda _: BYTES_AHEAD,
            lambda spec: gemv_tiles(spec).ahead,
        ),
        Size(
            "tiles",
            "tiles of rows that are read side by side",
            lambda spec: powers(min(MOST_STREAMS, spec.layouts[0].tiles)),
            lambda spec: gemv_tiles(spec).tiles,
        ),
    ),
    _gemv_conflict,
)


def integer_gemv_tiles(chosen: Options) -> GemvTiles:
    """The sizes of a settled choice."""
    return GemvTiles(
        chosen["steps"], chosen["subtiles"], chosen["runs"], chosen["prefetch"], chosen["tiles"]
    )


def _code_columns(spec: MatmulSpec) -> Sequence[int]:
    layout = spec.layouts[0]
    if not isinstance(layout, TileLayout):
        return ()
    return divisors(layout.group, 64, layout.step)


def _code_groups(spec: MatmulSpec) -> Sequence[int]:
    layout = spec.layouts[0]
    return divisors(layout.groups, 4) if isinstance(layout, TileLayout) else ()


def _gemv_f32_conflict(spec: MatmulSpec, chosen: Options) -> str | None:
    if chosen["groups"] > 1 and chosen["columns"] != _group(spec):
        return f"{chosen['groups']} groups a round where a group is a loop itself"
    written = chosen["columns"] * chosen["groups"]
    return f"{written} columns, at most {MOST_WRITTEN}" if written > MOST_WRITTEN else None


GEMV_F32: Space[MatmulSpec] = Space(
    (
        Size(
            "columns",
            "columns that are written out",
            _code_columns,
            lambda spec: gemv_f32_tiles(spec).columns,
        ),
        Size("chains", "sums of a sub-tile", lambda _: (1, 2, 4), lambda _: 2),
        Size("groups", "groups in a round of the outer loop", _code_groups, lambda _: 1),
        Size(
            "prefetch",
            "bytes from what is read to what is fetched",
            lambda spec: BYTES_AHEAD if isinstance(spec.layouts[0], TileLayout) else (),
            lambda spec: gemv_f32_tiles(spec).ahead,
        ),
    ),
    _gemv_f32_conflict,
)


def float_gemv_tiles(spec: MatmulSpec, chosen: Options) -> GemvF32Tiles:
    """The sizes of a settled choice; how many tiles go side by side is the level's to say."""
    return replace(
        gemv_f32_tiles(spec),
        columns=chosen["columns"],
        chains=chosen["chains"],
        groups=chosen["groups"],
        ahead=chosen["prefetch"],
    )


def _lut_conflict(spec: LutSpec, chosen: Options) -> str | None:
    chunks = spec.activation_group // CHUNK
    inside = spec.weight.group // spec.activation_group
    if chosen["groups"] > 1 and (chosen["chunks"] != chunks or inside > 1):
        return f"{chosen['groups']} groups a round where a group is a loop itself"
    written = chosen["chunks"] * chosen["groups"] * spec.weight.bits
    return f"{written} planes of chunks, at most 16" if written > 16 else None


LUT: Space[LutSpec] = Space(
    (
        Size(
            "registers",
            "registers of rows that a loop keeps sums of",
            lambda spec: powers(row_registers(spec)) if spec.order == "lut1" else (),
            lambda spec: lut_tiles(spec).registers,
        ),
        Size(
            "chunks",
            "chunks of 32 columns that are written out",
            lambda spec: divisors(spec.activation_group // CHUNK, 4),
            lambda _: 1,
        ),
        Size(
            "groups",
            "groups in a round of the outer loop",
            lambda spec: divisors(spec.layouts[0].groups, 4),
            lambda _: 1,
        ),
        Size(
            "prefetch",
            "bytes from what is read to what is fetched",
            lambda _: BYTES_AHEAD,
            lambda spec: lut_tiles(spec).ahead,
        ),
    ),
    _lut_conflict,
)


def lookup_tiles(chosen: Options) -> LutTiles:
    """The sizes of a settled choice."""
    return LutTiles(chosen["registers"], chosen["chunks"], chosen["groups"], chosen["prefetch"])
