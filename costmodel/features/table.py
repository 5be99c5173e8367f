"""Numbers for many schedules of one kernel at once: a row for each, a column for each feature.

The columns are the same for every family, so that one model holds all: sizes that a family does not
have are -1, facts that it does not have are 0. What follows from facts and sizes (trips of loops,
bytes that pass, sums that registers hold) is worked out by a rule of the family; the rules follow
the loops of `backends/cpu/kernels` and know no machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.costmodel.features.facts import Facts
from nybble.costmodel.features.locality import (
    PLACES,
    attention_places,
    gemm_places,
    gemv_places,
    lut_places,
    row_places,
)

F64 = npt.NDArray[np.float64]
Columns = dict[str, F64]
TILE, SUBTILES, LANES, PADDED = 64, 4, 16, 16
"""Rows of a packed tile, sub-tiles in it, their rows; what rows of tokens are a multiple of."""

FAMILIES = (
    *("int_dot", "dequantize", "lut", "lut_dot", "bitserial", "attention"),
    *("norm", "norm_quantize", "quantize", "glu", "add", "hadamard"),
)
FACTS = (
    *("rows", "parts", "cols", "digits", "activation_group", "bias", "residual", "glu", "exact"),
    *("symmetric", "bits", "bits_per_weight", "weight_group", "on_a_line", "super_group"),
    *("has_zero", "heads", "kv_heads", "bytes", "span", "width", "reads", "special"),
)
SIZES = (
    *("k_block", "row_tiles", "subtiles", "token_tile", "unroll", "tokens_outer", "prefetch"),
    *("steps", "runs", "tiles", "columns", "chains", "groups", "registers", "chunks"),
    *("key_block", "row_block", "row_tile", "key_vectors", "value_vectors", "lanes"),
)
DERIVED = (
    *("operations", "weight_bytes", "stream_bytes", "padded_tokens", "multiplies", "decodes"),
    *("rescales", "sum_bytes", "activation_loads", "weight_loads", "trips", "live", "written"),
    *("scratch_bytes", "ahead", "intensity", "chain"),
    *PLACES,
)
COLUMNS = (
    *(f"is_{name}" for name in FAMILIES),
    *("tokens", "shares"),
    *FACTS,
    *SIZES,
    *DERIVED,
)


@dataclass(frozen=True)
class Call:
    """How much of a kernel runs. tokens: rows; shares: see Workload; cached: keys before them."""

    tokens: int
    shares: int = 1
    cached: int = 0


def sizes_of(options: Sequence[Mapping[str, int]]) -> Columns:
    """The sizes of some schedules as columns; -1 where one is not chosen."""
    chosen = {name for one in options for name in one}
    missing = np.full(len(options), -1.0)
    return {
        name: np.array([one.get(name, -1) for one in options], np.float64)
        if name in chosen
        else missing
        for name in SIZES
    }


def table(facts: Facts, call: Call, options: Sequence[Mapping[str, int]]) -> F64:
    """f64 [len(options), len(COLUMNS)]."""
    sizes = sizes_of(options)
    return table_of(facts, call, sizes, derived(facts, call, sizes))


def table_of(facts: Facts, call: Call, sizes: Columns, columns: Columns) -> F64:
    """The same of columns of sizes and what is derived from them."""
    given: dict[str, float] = {
        f"is_{facts.family}": 1.0,
        "tokens": call.tokens,
        "shares": call.shares,
        **facts.numbers,
    }
    found = np.empty((len(COLUMNS), len(sizes[SIZES[0]])))
    for place, name in enumerate(COLUMNS):
        found[place] = sizes[name] if name in sizes else columns.get(name, given.get(name, 0.0))
    return found.T


def derived(facts: Facts, call: Call, sizes: Columns) -> Columns:
    """The columns of DERIVED that a family has."""
    rule = RULES.get(facts.family, _rows)
    return rule(facts.numbers, call, sizes)


def _product_base(numbers: Mapping[str, float], call: Call, count: int) -> Columns:
    """What does not depend on the schedule: tiles of a share, operations and bytes."""
    tiles = max(1.0, np.ceil(numbers["rows"] / TILE) // call.shares)  # the first share has least
    weights = tiles * TILE * numbers["cols"]
    full = np.full(count, 1.0)
    return {
        "tiles": tiles * full,
        "weights": weights * full,
        "operations": 2.0 * weights * call.tokens * max(numbers["digits"], 1.0) * full,
        "weight_bytes": weights * numbers["bits_per_weight"] / 8 * full,
    }


def _gemm(numbers: Mapping[str, float], call: Call, sizes: Columns) -> Columns:
    """Many tokens: blocks of columns are unpacked, then multiplied with all tokens."""
    found = _product_base(numbers, call, len(sizes["k_block"]))
    is_float = numbers["digits"] == 0
    width = 4.0 if is_float else 1.0
    group = numbers["cols"] if is_float else numbers["activation_group"]
    steps = np.ceil(call.tokens / sizes["token_tile"])
    padded = steps * sizes["token_tile"]
    blocks = numbers["cols"] / sizes["k_block"]
    passes = SUBTILES / sizes["subtiles"]
    per_step = 1.0 if is_float else 4.0
    inner = sizes["k_block"] if is_float else np.full(len(steps), group)
    found |= {
        "padded_tokens": padded,
        "multiplies": found["weights"] * padded * max(numbers["digits"], 1.0),
        "decodes": found["weights"],
        "rescales": found["tiles"]
        * SUBTILES
        * padded
        * (0 if is_float else numbers["cols"] / group),
        "sum_bytes": found["tiles"] * TILE * padded * blocks * 8.0,
        "activation_loads": found["tiles"] * passes * padded * numbers["cols"] / per_step,
        "weight_loads": found["weights"] * width * steps,
        "trips": found["weights"] / TILE * passes * steps / (sizes["unroll"] * per_step),
        "live": sizes["subtiles"] * sizes["token_tile"],
        "written": sizes["subtiles"] * sizes["token_tile"] * sizes["unroll"],
        "scratch_bytes": sizes["k_block"] * TILE * width * sizes["row_tiles"],
        "stream_bytes": found["weight_bytes"] + call.tokens * numbers["cols"] * width,
        "ahead": sizes["prefetch"] * sizes["k_block"] * numbers["bits_per_weight"] * TILE / 8,
        "chain": np.minimum(inner / (sizes["unroll"] * per_step), 1e6),
    }
    found |= gemm_places(numbers, call.tokens, sizes, found)
    return _with_intensity(found)


def _gemv(numbers: Mapping[str, float], call: Call, sizes: Columns) -> Columns:
    """One token: packed tiles are multiplied where they lie."""
    found = _product_base(numbers, call, len(sizes["prefetch"]))
    groups = numbers["cols"] / numbers["weight_group"]
    is_float = numbers["digits"] == 0
    if is_float:
        written = sizes["columns"] * np.maximum(sizes["groups"], 1)
        trips = found["weights"] / TILE / np.maximum(written, 1)
        live = np.maximum(sizes["chains"], 1)
    else:
        beside = np.maximum(sizes["tiles"], 1)
        written = sizes["steps"] * np.maximum(sizes["runs"], 1) * beside
        trips = found["weights"] / TILE / np.maximum(written * 8, 1)
        live = sizes["subtiles"] * beside
    found |= {
        "padded_tokens": np.ones(len(trips)),
        "multiplies": found["weights"] * max(numbers["digits"], 1.0),
        "decodes": found["weights"] * (1.0 if is_float else 0.25),
        "rescales": found["tiles"] * SUBTILES * groups,
        "trips": trips,
        "live": live,
        "written": written,
        "ahead": sizes["prefetch"],
        "activation_loads": found["weights"]
        / TILE
        * SUBTILES
        / np.maximum(sizes["subtiles"] if is_float else live, 1),
        "stream_bytes": found["weight_bytes"] + numbers["cols"] * (4.0 if is_float else 1.0),
    }
    found |= gemv_places(numbers, sizes, found)
    return _with_intensity(found)


def _lut(numbers: Mapping[str, float], call: Call, sizes: Columns) -> Columns:
    """Lookup tables: all of it for each token."""
    found = _product_base(numbers, call, len(sizes["prefetch"]))
    planes = found["weights"] / 4 * numbers["bits"] * call.tokens
    written = sizes["chunks"] * sizes["groups"] * numbers["bits"]
    found |= {
        "padded_tokens": np.full(len(written), float(call.tokens)),
        "multiplies": planes * numbers["digits"],
        "decodes": planes,
        "rescales": found["tiles"]
        * SUBTILES
        * numbers["cols"]
        / numbers["activation_group"]
        * call.tokens,
        "trips": found["weights"] / TILE / 32 * call.tokens / np.maximum(written, 1),
        "live": sizes["registers"] * numbers["bits"],
        "written": written,
        "ahead": sizes["prefetch"],
        "weight_loads": found["weight_bytes"] * call.tokens,
        "stream_bytes": found["weight_bytes"] + call.tokens * numbers["cols"] * 8.0,
    }
    found |= lut_places(numbers, sizes, found)
    return _with_intensity(found)


def _with_intensity(found: Columns) -> Columns:
    found["intensity"] = found["operations"] / np.maximum(found["stream_bytes"], 1)
    return found


def _product(numbers: Mapping[str, float], call: Call, sizes: Columns) -> Columns:
    many = bool((sizes["k_block"] > 0).any())
    return (_gemm if many else _gemv)(numbers, call, sizes)


def _attention(numbers: Mapping[str, float], call: Call, sizes: Columns) -> Columns:
    """Tiles of query rows over blocks of keys."""
    group = numbers["heads"] / numbers["kv_heads"]
    tiles = np.ceil(call.tokens / sizes["row_block"])
    keys = call.cached + call.tokens
    seen = min(keys, numbers["span"] or keys)
    blocks = np.ceil((call.cached + call.tokens / 2) / sizes["key_block"])
    rows = group * sizes["row_block"]
    pairs = tiles * rows * blocks * sizes["key_block"] * numbers["kv_heads"]
    sums = np.maximum(sizes["key_vectors"], sizes["value_vectors"])
    cache = 2.0 * seen * numbers["cols"] * numbers["kv_heads"] * numbers["bytes"]
    return _with_intensity(
        {
            "operations": 4.0 * pairs * numbers["cols"],
            "padded_tokens": tiles * sizes["row_block"],
            "multiplies": 4.0 * pairs * numbers["cols"],
            "decodes": pairs,
            "rescales": tiles * rows * blocks * numbers["cols"] * numbers["kv_heads"],
            "sum_bytes": tiles * rows * blocks * numbers["cols"] * 8.0 * numbers["kv_heads"],
            "activation_loads": pairs / (LANES * sizes["key_vectors"]) * numbers["cols"],
            "weight_loads": cache * tiles * rows / sizes["row_tile"],
            "stream_bytes": cache * tiles,
            "weight_bytes": np.full(len(tiles), cache),
            "live": sizes["row_tile"] * sums,
            "written": sizes["row_tile"] * sums,
            "scratch_bytes": 4.0 * rows * (2 * numbers["cols"] + sizes["key_block"]),
            "trips": pairs / (sizes["row_tile"] * LANES * sizes["key_vectors"]),
            "chain": sizes["row_tile"] * sizes["value_vectors"],
            **attention_places(numbers, call.tokens, keys, sizes),
        }
    )


def _rows(numbers: Mapping[str, float], call: Call, sizes: Columns) -> Columns:
    """Vectors of a row, one after the other."""
    count = len(sizes["lanes"])
    elements = np.full(count, call.tokens * numbers["cols"] / call.shares)
    return _with_intensity(
        {
            "operations": elements * 4.0,
            "decodes": elements * (1.0 + 8.0 * numbers["special"]),
            "multiplies": elements,
            "stream_bytes": elements * 4.0 * (numbers["reads"] + 1.0),
            "trips": elements / np.maximum(sizes["lanes"], 1),
            "live": np.maximum(sizes["chains"], 1) * np.maximum(sizes["lanes"], 1) / LANES,
            **row_places(numbers, sizes),
        }
    )


RULES: dict[str, Callable[[Mapping[str, float], Call, Columns], Columns]] = {
    "int_dot": _product,
    "dequantize": _product,
    "bitserial": _product,
    "lut": _lut,
    "lut_dot": _lut,
    "attention": _attention,
}
"""Family -> its rule; the others work row by row."""
