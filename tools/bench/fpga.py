"""`nybble bench fpga`: cycles of processing elements by Verilator, resources by Yosys.

A table-stationary element stands beside the better of two multiplying ones with as many products a
cycle. Sparse elements stand alone, in DSPs for each product that a dense element would do. Cycles
count from the first weights taken to the last result; before them, the first tables are built once
(`loading_cycles`), all others while weights stream. Every result is compared with the reference.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.designs import (
    SPARSE,
    TABLE,
    Design,
    beats_of,
    random_sparse,
    random_weights,
)
from nybble.backends.fpga.rtl.encoding import Beats, Product
from nybble.backends.fpga.rtl.narrow_products import PRODUCTS
from nybble.backends.fpga.rtl.resource_model import predicted
from nybble.backends.fpga.rtl.simulate import program, run
from nybble.backends.fpga.rtl.sparse_encoding import sparse_beats
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.synthesis import Resources, synthesized
from nybble.dialects.lowbit.formats.element import Bipolar, Element, Ternary, Uniform
from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.machine import describe_host
from nybble.tools.bench.report import Column, Report, Row

ELEMENTS: Mapping[str, Element] = {
    "w1": Bipolar(1), "w1.58": Ternary(), "w2": Uniform(2, 2), "w3": Uniform(3, 4),
    "w4": Uniform(4, 8),
}  # fmt: skip
"""Weights of a table-stationary element by name."""
SPARSITIES: Mapping[str, tuple[int, int]] = {
    "2:4": (2, 4), "2:16": (2, 16), "4:16": (4, 16), "8:16": (8, 16), "16:16": (16, 16),
}  # fmt: skip
"""Kept weights and size of a block by name."""
FORMATS = (*ELEMENTS, *SPARSITIES)
SPARSE_ROWS, SPARSE_K = 8, 4096
COLUMNS = (
    Column("kernel", "kernel"),
    Column("format", "format"),
    Column("MAC/cycle", "macs_per_cycle", "{:.0f}"),
    Column("LUT", "luts"),
    Column("modelled", "modelled_luts"),
    Column("DSP", "dsps"),
    Column("BRAM18", "brams"),
    Column("LUT/MAC", "lut_per_mac", "{:.2f}"),
    Column("baseline", "baseline_lut_per_mac", "{:.2f}"),
    Column("DSP/MAC", "dsp_per_mac", "{:.3f}"),
    Column("cycles", "rtl_cycles"),
    Column("ideal", "ideal_cycles", "{:.1f}"),
)


@dataclass(frozen=True)
class FpgaOptions:
    """formats: of FORMATS; n: outputs; tiles: of activations that a product has.

    lanes, rows, depth: of elements with tables. baseline: whether to synthesize what they are
    compared with, which takes most of the time.
    """

    formats: tuple[str, ...] = FORMATS
    n: int = 4096
    tiles: int = 4
    lanes: int = 16
    rows: int = 7
    baseline: bool = True

    def spec(self, name: str) -> PeSpec:
        """The element of a format with tables."""
        element = ELEMENTS[name]
        group = 3 if isinstance(element, Ternary) else 4
        steps = max(-(-self.n // self.rows), 512)
        depth = 1 << (steps - 1).bit_length()
        return PeSpec(element, group, self.lanes, self.rows, depth)


def bench_fpga(options: FpgaOptions, cache: Cache, progress: Callable[[str], None]) -> Report:
    """Measures each format; raises BenchError for a result that is wrong."""
    rows = list(_rows(options, cache, progress))
    notes = ["LUTs by Yosys, unpacked and unplaced; no clock frequency is known"]
    facts = {"n": options.n, "tiles": options.tiles}
    return Report("fpga", describe_host(), rows, notes, facts)


def _rows(options: FpgaOptions, cache: Cache, progress: Callable[[str], None]) -> Iterator[Row]:
    random = np.random.default_rng(0)
    for name in options.formats:
        progress(name)
        if name in ELEMENTS:
            yield _table_row(name, options, cache, random)
        else:
            yield _sparse_row(name, cache, random)


def _table_row(name: str, options: FpgaOptions, cache: Cache, random: np.random.Generator) -> Row:
    spec = options.spec(name)
    design = Design(TABLE, spec)
    shape = (options.n, options.tiles * spec.k)
    product = Product(random_weights(spec, shape, random), random.integers(-128, 128, shape[1]))
    cycles = _cycles(design, beats_of(TABLE, spec, product), product.reference()[:, None], cache)
    found = {kind: _resources(Design(kind, spec), cache) for kind in PRODUCTS if options.baseline}
    best = min(found, key=lambda kind: found[kind].luts, default=None)
    per_mac = None if best is None else found[best].luts / spec.macs_per_cycle
    return {
        **_facts(TABLE, name, design, spec.macs_per_cycle, cache),
        "element": spec.element.spell, "baseline": best, "baseline_lut_per_mac": per_mac,
        "baselines": {kind: resources.as_json() for kind, resources in found.items()},
        **cycles,
    }  # fmt: skip


def _sparse_row(name: str, cache: Cache, random: np.random.Generator) -> Row:
    kept, block = SPARSITIES[name]
    spec = SparseSpec(block, SPARSE_ROWS)
    design = Design(SPARSE, spec)
    weights = random_sparse((4 * SPARSE_ROWS, SPARSE_K), block, kept, random)
    activations = random.integers(-128, 128, (SPARSE_K, spec.tokens))
    beats = sparse_beats(spec, weights, activations)
    cycles = _cycles(design, beats, weights.astype(np.int64) @ activations, cache)
    facts = _facts(SPARSE, name, design, spec.macs_per_cycle(kept), cache)
    return {**facts, "element": "i8", "baseline": None, "baseline_lut_per_mac": None, **cycles}


def _facts(kernel: str, name: str, design: Design, macs: float, cache: Cache) -> Row:
    resources = _resources(design, cache)
    return {
        "kernel": kernel, "format": name, "top": design.top, "macs_per_cycle": macs,
        **resources.as_json(), "modelled_luts": predicted(design).luts,
        "lut_per_mac": resources.luts / macs, "dsp_per_mac": resources.dsps / macs,
    }  # fmt: skip


def _resources(design: Design, cache: Cache) -> Resources:
    return synthesized(design.verilog, design.top, cache, design.options)


def _cycles(
    design: Design, beats: Beats, expected: np.ndarray, cache: Cache
) -> dict[str, float | int]:
    executable = program(design.verilog, design.top, cache)
    [ran] = run(executable, [beats], design.y_words)
    if not np.array_equal(design.sums(ran.y, len(expected)), expected):
        raise BenchError(f"element {design.top} gives wrong sums")
    return {
        "rtl_cycles": ran.cycles, "ideal_cycles": beats.ideal, "loading_cycles": ran.loading,
    }  # fmt: skip


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Formats by name; raises BenchError for an unknown one."""
    for name in names:
        if name not in FORMATS:
            raise BenchError(f"unknown format '{name[:40]}'", accepted=", ".join(FORMATS))
    return tuple(names)
