"""`nybble bench fpga`: cycles of processing elements by Verilator, resources by Yosys.

Elements with tables, those that compare bits and those that work on a term of each weight in a
cycle stand beside the better of two multiplying ones with as many products a cycle; sparse ones
beside a chain of multipliers that does as many of a dense matrix. Cycles count from the first
weights taken to the last result; before them, the first tables are built or activations loaded once
(`loading_cycles`), all others while weights stream. Every result is compared with the reference.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.bit_products import COUNTING, SERIAL
from nybble.backends.fpga.rtl.coded import CodedSpec
from nybble.backends.fpga.rtl.designs import (
    SPARSE,
    TABLE,
    Design,
    beats_of,
    random_product,
    random_sparse,
)
from nybble.backends.fpga.rtl.encoding import Beats
from nybble.backends.fpga.rtl.narrow_products import PRODUCTS
from nybble.backends.fpga.rtl.resource_model import predicted
from nybble.backends.fpga.rtl.simulate import program, run
from nybble.backends.fpga.rtl.sparse_encoding import sparse_beats
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.synthesis import Resources, synthesized
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.element import Bipolar, Element, Ternary, Uniform
from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.machine import describe_host
from nybble.tools.bench.report import Column, Report, Row

ELEMENTS: Mapping[str, Element] = {
    "w1": Bipolar(1), "w1.58": Ternary(), "w2": Uniform(2, 2), "w3": Uniform(3, 4),
    "w4": Uniform(4, 8),
}  # fmt: skip
"""Weights of a table-stationary element by name."""
CODED = ("bitmod3", "bitmod4")
"""Weights of a bit-serial element: formats whose groups choose special values."""
BIPOLAR: Mapping[str, tuple[int, int]] = {
    "bip1a1": (1, 1), "bip2a2": (2, 2), "bip4a4": (4, 4),
}  # fmt: skip
"""Bits of bipolar weights and activations by name."""
SPARSITIES: Mapping[str, tuple[int, int]] = {
    "2:4": (2, 4), "2:16": (2, 16), "4:16": (4, 16), "8:16": (8, 16), "16:16": (16, 16),
}  # fmt: skip
"""Kept weights and size of a block by name."""
FORMATS = (*ELEMENTS, *CODED, *BIPOLAR, *SPARSITIES)
SPARSE_ROWS, SPARSE_K = 8, 4096
SERIAL_ROWS = 8
"""Outputs of a bit-serial element in a cycle: a multiple of the terms of a weight."""
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
    Column("baseline", "baseline_dsp_per_mac", "{:.3f}"),
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

    def design(self, name: str) -> Design:
        """The element of a format that keeps a tile of activations."""
        if name in ELEMENTS:
            element = ELEMENTS[name]
            group = 3 if isinstance(element, Ternary) else 4
            return Design(TABLE, self.spec(PeSpec, element, self.rows, group=group))
        if name in CODED:
            element = formats.get(f"{name}g128").element
            return Design(SERIAL, self.spec(CodedSpec, element, SERIAL_ROWS))
        planes, taken = BIPOLAR[name]
        element = Bipolar(planes)
        spec = self.spec(PeSpec, element, self.rows, activation_bits=taken + 1, odd=True)
        return Design(COUNTING, spec)

    def spec(self, kind: type[PeSpec], element: Element, rows: int, **more: Any) -> PeSpec:
        """What is common to them."""
        return kind(element, lanes=self.lanes, rows=rows, depth=depth_of(self.n, rows), **more)


def depth_of(n: int, rows: int) -> int:
    """Cycles of a tile that accumulators of n outputs have room for."""
    return 1 << (max(-(-n // rows), 512) - 1).bit_length()


def baseline_spec(spec: PeSpec, n: int) -> PeSpec:
    """A spec with as many products a cycle where each takes one."""
    rows = spec.rows // spec.terms
    return spec if spec.terms == 1 else replace(spec, rows=rows, depth=depth_of(n, rows))


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
        if name in SPARSITIES:
            yield _sparse_row(name, options, cache, random)
        else:
            yield _tile_row(name, options, cache, random)


def _tile_row(name: str, options: FpgaOptions, cache: Cache, random: np.random.Generator) -> Row:
    design = options.design(name)
    spec = design.spec
    assert isinstance(spec, PeSpec)
    product = random_product(spec, (options.n, options.tiles * spec.k), random)
    beats = beats_of(design.kind, spec, product)
    cycles = _cycles(design, beats, product.reference()[:, None], cache)
    macs = spec.macs_per_cycle / spec.terms
    same = baseline_spec(spec, options.n)
    rivals = [Design(kind, same) for kind in PRODUCTS if options.baseline]
    return {
        **_facts(design.kind, name, design, macs, cache), "element": spec.element.spell,
        **_baselines({one.kind: one for one in rivals}, macs, cache), **cycles,
    }  # fmt: skip


def _sparse_row(name: str, options: FpgaOptions, cache: Cache, random: np.random.Generator) -> Row:
    kept, block = SPARSITIES[name]
    spec = SparseSpec(block, SPARSE_ROWS)
    design = Design(SPARSE, spec)
    weights = random_sparse((4 * SPARSE_ROWS, SPARSE_K), block, kept, random)
    activations = random.integers(-128, 128, (SPARSE_K, spec.tokens))
    beats = sparse_beats(spec, weights, activations)
    cycles = _cycles(design, beats, weights.astype(np.int64) @ activations, cache)
    macs = spec.macs_per_cycle(kept)
    dense = Design(SPARSE, replace(spec, block=block * spec.entries // kept, dense=True))
    rivals = {"dense": dense} if options.baseline else {}
    facts = _facts(SPARSE, name, design, macs, cache)
    return {**facts, "element": "i8", **_baselines(rivals, macs, cache), **cycles}


def _baselines(rivals: Mapping[str, Design], macs: float, cache: Cache) -> Row:
    """What does as many products in a cycle, and that of it which takes fewest LUTs."""
    found = {name: _resources(design, cache) for name, design in rivals.items()}
    best = min(found, key=lambda name: found[name].luts, default=None)
    return {
        "baseline": best,
        "baseline_lut_per_mac": None if best is None else found[best].luts / macs,
        "baseline_dsp_per_mac": None if best is None else found[best].dsps / macs,
        "baselines": {name: resources.as_json() for name, resources in found.items()},
    }


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
    if not np.array_equal(design.sums(ran.y, len(expected), beats), expected):
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
