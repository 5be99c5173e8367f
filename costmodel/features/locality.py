"""Where the operands of a kernel's innermost loops lie, and how full its blocks are.

A product with many tokens multiplies each block of columns in register tiles. Of a tile's two
operands one stays while the loops around it go on, and the other streams: token rows along
sub-tiles of weights, or, with `tokens_outer`, weights along token rows. Whether both fit into the
nearest cache decides what a load costs; a machine's sizes are not known here (see `estimate`).

| column | |
|---|---|
| stays, streams | bytes of the operand that stays and of the one that streams, in a block |
| streamed | bytes that stream in the whole call |
| padding | tokens, or keys, that are computed for each that there is |
| row_fill | tiles of rows in a run, on average |
| inputs, sums | bytes of activations and of sums that a run goes through |
| pressure | registers of 8 lanes that the innermost loop wants |
| spilled | share of its sums that do not fit into REGISTERS |
| closes | sums of short integers that are widened, at the end of a round of the loop |
| reuse | products for each load of the innermost loop |
| inner | trips of the innermost loop before sums are used |
| blocks | of columns, or groups in a row |
| stride | largest power of two, up to a page, that divides the bytes between token rows |
| ahead_share | what is prefetched ahead, of all bytes of weights |
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Columns = dict[str, F64]
Numbers = Mapping[str, float]
PLACES = (
    *("stays", "streams", "streamed", "padding", "row_fill", "inputs", "sums", "pressure", "reuse"),
    *("inner", "blocks", "stride", "ahead_share", "spilled", "closes"),
)
REGISTERS = 16.0
TILE, SUBTILES, LANES, PAGE = 64, 4, 16, 4096


def gemm_places(numbers: Numbers, tokens: int, sizes: Columns, found: Columns) -> Columns:
    """Of a product with many tokens; found: `tiles`, `padded_tokens` and `chain` of it."""
    is_float = numbers["digits"] == 0
    digits = max(1.0, numbers["digits"])
    weight, activation = (4.0, 4.0) if is_float else (1.0, digits)
    subtiles, token_tile, k_block = sizes["subtiles"], sizes["token_tile"], sizes["k_block"]
    outer = sizes["tokens_outer"] > 0
    padded, tiles = found["padded_tokens"], found["tiles"]
    joined = 2.0 if numbers["glu"] else 1.0
    runs = np.ceil(tiles / joined / sizes["row_tiles"])
    slots = tiles / joined / runs
    blocks = numbers["cols"] / k_block
    sums = subtiles * token_tile * (1.0 if is_float else 1.0 + digits)
    pressure = 2.0 * sums + 2.0 * subtiles + digits
    tokens_side = padded * k_block * activation
    weights_side = slots * TILE * k_block * weight
    streams = np.where(outer, weights_side, tokens_side)
    passes = np.where(outer, padded / token_tile, slots * SUBTILES / subtiles)
    return {
        "stays": np.where(
            outer, token_tile * k_block * activation, subtiles * LANES * k_block * weight
        ),
        "streams": streams,
        "streamed": streams * passes * blocks * runs * joined,
        "padding": padded / tokens,
        "row_fill": slots,
        "inputs": padded * numbers["cols"] * activation,
        "sums": padded * slots * joined * TILE * 4.0,
        "pressure": pressure,
        "spilled": _spilled(pressure, 2.0 * sums),
        "closes": found["trips"] * sums * (0.0 if is_float else 1.0),
        "reuse": 2.0 * subtiles * token_tile * digits / (2.0 * subtiles + token_tile * digits),
        "inner": found["chain"],
        "blocks": blocks,
        "stride": np.full(len(runs), _alignment(numbers["cols"] * (4.0 if is_float else 1.0))),
    }


def gemv_places(numbers: Numbers, sizes: Columns, found: Columns) -> Columns:
    """Of a product with one token; found: `weight_bytes` of it."""
    is_float = numbers["digits"] == 0
    groups = numbers["cols"] / numbers["weight_group"]
    inner = (
        numbers["weight_group"] / np.maximum(sizes["columns"], 1)
        if is_float
        else numbers["activation_group"]
        / (4 * np.floor(8 / numbers["bits"]))
        / np.maximum(sizes["steps"], 1)
    )
    sums = sizes["subtiles"] * np.maximum(sizes["tiles"], 1) * numbers["digits"]
    wide = sizes["chains"] if is_float else sums
    return {
        "inner": inner,
        "blocks": groups / np.maximum(sizes["groups" if is_float else "runs"], 1),
        "pressure": 2.0 * np.maximum(wide, 1.0),
        "closes": found["trips"] * np.maximum(wide, 1.0) * (0.0 if is_float else 1.0),
        "ahead_share": sizes["prefetch"] / found["weight_bytes"],
    }


def lut_places(numbers: Numbers, sizes: Columns, found: Columns) -> Columns:
    """Of a product by lookup tables; found: `weight_bytes` of it."""
    kinds = numbers["digits"] if numbers["exact"] else numbers["bits"]
    sums = np.maximum(sizes["registers"], 1) * 2.0 * kinds
    pressure = sums + numbers["digits"] + 4.0
    written = np.maximum(sizes["chunks"], 1) * np.maximum(sizes["groups"], 1)
    return {
        "pressure": pressure,
        "spilled": _spilled(pressure, sums),
        "inner": numbers["activation_group"] / 32.0 / np.maximum(sizes["chunks"], 1),
        "blocks": numbers["cols"] / 32.0 / written,
        "ahead_share": sizes["prefetch"] / found["weight_bytes"],
    }


def attention_places(numbers: Numbers, tokens: int, keys: float, sizes: Columns) -> Columns:
    """Of attention; keys: that the last token sees."""
    key_block, row_tile = sizes["key_block"], sizes["row_tile"]
    group = numbers["heads"] / numbers["kv_heads"]
    rows = np.ceil(tokens / sizes["row_block"]) * sizes["row_block"]
    vectors = np.maximum(sizes["key_vectors"], sizes["value_vectors"])
    both = [
        _spilled(2.0 * (row_tile + 1.0) * one + 1.0, 2.0 * row_tile * one)
        for one in (sizes["key_vectors"], sizes["value_vectors"])
    ]
    return {
        "stays": group * sizes["row_block"] * numbers["cols"] * 4.0,
        "streams": key_block * numbers["cols"] * 2.0 * numbers["bytes"],
        "padding": rows / tokens * np.ceil(keys / key_block) * key_block / keys,
        "inputs": np.full(len(rows), keys * numbers["cols"] * 2.0 * numbers["bytes"]),
        "sums": group * sizes["row_block"] * key_block * 4.0,
        "pressure": 2.0 * row_tile * vectors + 2.0 * vectors,
        "spilled": (both[0] + both[1]) / 2.0,
        "reuse": 2.0 * row_tile * vectors / (2.0 * vectors + row_tile),
        "inner": numbers["cols"] / (LANES * np.maximum(sizes["value_vectors"], 1)),
        "blocks": np.ceil(keys / key_block),
    }


def row_places(numbers: Numbers, sizes: Columns) -> Columns:
    """Of a kernel that works row by row."""
    lanes, chains = np.maximum(sizes["lanes"], 1), np.maximum(sizes["chains"], 1)
    return {"inner": numbers["cols"] / (lanes * chains)}


def _spilled(pressure: F64, sums: F64) -> F64:
    return np.minimum(np.maximum(pressure - REGISTERS, 0.0) / sums, 1.0)


def _alignment(size: float) -> float:
    """The largest power of two up to a page that divides some bytes."""
    whole = int(size)
    return float(min(PAGE, whole & -whole)) if whole else 1.0
