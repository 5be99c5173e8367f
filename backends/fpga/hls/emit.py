"""Fpga kernels as C++ for high-level synthesis: one template for each kind of process.

What a template needs follows from its operation alone: the names and types of its streams and
memories, its tiling and its element.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from xdsl.ir import SSAValue

from nybble.backends.fpga.hls.rows import ROWS, header_context
from nybble.backends.fpga.hls.words import (
    Context,
    memory_context,
    optional_context,
    place_context,
    stream_context,
)
from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp
from nybble.dialects.fpga.attrs import (
    ENTRIES,
    LARGEST_ACTIVATION,
    SPACING,
    ElementAttr,
    LookupAttr,
    SparseAttr,
    TilingAttr,
    ValuesAttr,
)
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import (
    ProcessOp,
    QuantizeOp,
    ReadOp,
    WriteOp,
    memory_type,
)
from nybble.dialects.fpga.scales import RescaleOp, ScaleGroupsOp
from nybble.dialects.fpga.serial import SerialAttr
from nybble.dialects.fpga.xnor import XnorAttr
from nybble.dialects.numpy_ref.quantize import LANES, PARTIAL, SMALLEST_AMAX

COMMON = "nybble_hls.h"
"""The header that every kernel includes."""
FOR_ROWS = "nybble_rows.h"
"""The header of kernels with processes on rows."""


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates."""
    return Environment(
        loader=PackageLoader("nybble.backends.fpga.hls", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def emit(kernel: KernelOp) -> dict[str, str]:
    """File name -> text: the kernel, its header and the header common to all kernels."""
    name = kernel.sym_name.data
    names = names_of(kernel)
    arguments = ", ".join(_argument(kernel, one, names) for one in kernel.body.block.args)
    calls = [(f"{op.name.split('.')[1]}_{i}", op) for i, op in enumerate(kernel.processes)]
    on_rows = any(type(op) in ROWS for op in kernel.processes)
    context = {
        "name": name,
        "headers": (COMMON, FOR_ROWS) if on_rows else (COMMON,),
        "what": f"for {kernel.device.data}, {len(calls)} processes",
        "arguments": arguments,
        "memories": argument_memories(kernel),
        "streams": [stream_context(one) | {"name": names[one]} for one in kernel.streams],
        "processes": [process_text(called, op) for called, op in calls],
        "calls": [
            {"name": called, "arguments": ", ".join(names[v] for v in (*op.operands, *op.results))}
            for called, op in calls
        ],
    }
    found = {
        f"{name}.cpp": render("kernel", context),
        f"{name}.h": render("header", context),
        COMMON: files("nybble.backends.fpga.hls").joinpath(f"templates/{COMMON}").read_text(),
    }
    return found | {FOR_ROWS: render(FOR_ROWS, header_context())} if on_rows else found


def argument_memories(kernel: KernelOp) -> list[Context]:
    """The kernel's arguments: name, words, bits of a word, whether it is written, and read."""
    names, written, read_ = names_of(kernel), kernel.outputs, kernel.inputs
    return [
        {
            "name": names[one],
            "words": memory_type(one).words.data,
            "bits": memory_type(one).bits.data,
            "written": one in written,
            "read": one in read_,
        }
        for one in kernel.body.block.args
    ]


def render(template: str, context: Mapping[str, Any]) -> str:
    """A template, filled in."""
    return environment().get_template(f"{template}.jinja").render(context)


def names_of(kernel: KernelOp) -> dict[SSAValue, str]:
    """What memories and streams are called: the names of the IR where it has some."""
    found = {one: one.name_hint or f"m{i}" for i, one in enumerate(kernel.body.block.args)}
    return found | {one: f"s{i}_{one.name_hint or ''}" for i, one in enumerate(kernel.streams)}


def process_text(name: str, op: ProcessOp) -> str:
    """The function of a process."""
    describe = CONTEXTS[type(op)]
    template = op.name.split(".")[1]
    return render(template, {"name": name, **describe(op)}).rstrip("\n")


def _argument(kernel: KernelOp, value: SSAValue, names: Mapping[SSAValue, str]) -> str:
    const = "" if value in kernel.outputs else "const "
    return f"{const}ap_uint<{memory_type(value).bits.data}>* {names[value]}"


def _tiling(tiling: TilingAttr) -> Context:
    plain = {name: getattr(tiling, name).data for name in tiling.FIELDS}
    derived = ("tile", "tiles", "tiles_per_group", "groups", "row_blocks", "passes", "sums")
    return plain | {name: getattr(tiling, name) for name in derived}


def quantize(op: QuantizeOp) -> Context:
    """What the template of a quantization needs."""
    return {
        "t": _tiling(op.tiling),
        "memory": place_context(op.memory),
        "lanes": op.lanes,
        "columns": stream_context(op.columns),
        "scales": stream_context(op.scales),
        "totals": optional_context(op.totals),
        "row_words": op.row,
        "planes": op.bipolar,
        "top": f"{float(2**op.bipolar - 1 if op.bipolar else LARGEST_ACTIVATION)}f",
        "share": f"{float(np.float32(1 / op.tiling.cols.data))!r}f",
        "partial": PARTIAL,
        "partial_lanes": LANES,
        "smallest": f"{float(SMALLEST_AMAX)!r}f",
        "finite": f"{float(np.finfo(np.float32).max)!r}f",
    }


def read(op: ReadOp) -> Context:
    """What the template of a reader needs."""
    bits = op.share * op.type.element_bits
    starts = range(0, op.type.word_bits, bits)
    parts = [
        {"low": low, "high": min(low + bits, op.type.word_bits) - 1, **memory_context(memory)}
        for low, memory in zip(starts, op.memories, strict=True)
    ]
    words = memory_type(op.memories[0]).words.data
    repeat = op.repeat.value.data
    return {
        "memories": parts,
        "stream": stream_context(op.stream),
        "words": words,
        "repeat": repeat,
    }


def write(op: WriteOp) -> Context:
    """What the template of a writer needs."""
    memory = memory_context(op.memory)
    return {"memory": memory, "stream": stream_context(op.stream), "words": op.type.words.data}


def build_tables(op: BuildTablesOp) -> Context:
    """What the template of a table builder needs."""
    ways, element = op.ways.value.data, op.element
    rows = ("{" + ", ".join(map(str, row)) + "}" for row in element.taken().tolist())
    tile_blocks = op.tiling.lanes.data // ways
    return {
        "t": _tiling(op.tiling),
        "columns": stream_context(op.columns),
        "tables": stream_context(op.tables),
        "sums": optional_context(op.sums),
        "entries": ENTRIES,
        "width": element.width,
        "taken": ", ".join(rows),
        "ways": ways,
        "tile_blocks": tile_blocks,
        "blocks": op.tiling.passes * op.tiling.tiles * tile_blocks,
    }


def array(op: ArrayOp) -> Context:
    """What the template of an array needs; its elements are a template of their own."""
    template, more = element_context(op.element, op.tiling)
    return {
        "t": _tiling(op.tiling),
        "stationary": stream_context(op.stationary),
        "weights": stream_context(op.weights),
        "sums": optional_context(op.sums),
        "indices": optional_context(op.indices),
        "dots": stream_context(op.dots),
        "ways": op.ways,
        "load": op.load,
        "steps": op.steps,
        "terms": op.element.terms,
        "start": op.element.start(op.tiling.group.data),
        "element": template,
        **more,
    }


def element_context(element: ElementAttr, tiling: TilingAttr) -> tuple[str, Context]:
    """The template of an element, and what it needs."""
    if isinstance(element, LookupAttr):
        context = {
            "what": "Look-ups in the tables of a tile,",
            "planes": element.planes.data,
            "step": element.step.data,
            "first": element.first.data,
            "entries": ENTRIES,
        }
        return "lookup", context
    if isinstance(element, XnorAttr):
        context = {
            "what": "Bits of weights that differ from those of a tile,",
            "planes": element.planes.data,
            "taken": element.taken.data,
            "width": element.width,
        }
        return "xnor", context
    assert isinstance(element, ValuesAttr)
    values: Context = {"values": element.numbers("values")}
    if isinstance(element, SerialAttr):
        context = {
            "codes": element.codes,
            "decoded": element.decoded,
            "bits": 8 + element.largest_exponent,
        }
        return "serial", {"what": "A term of each weight times a tile,", **context}
    if isinstance(element, SparseAttr):
        values |= {
            "keep": element.keep.data,
            "width": element.width,
            "shared": element.is_shared,
            "pair": element.pair(tiling),
            "chain": element.chain(),
            "spacing": SPACING,
        }
        return "sparse", {"what": "Products of the columns that a tile keeps,", **values}
    return "multiply", {"what": "Narrow products with a tile,", **values}


def scale_groups(op: ScaleGroupsOp) -> Context:
    """What the template of a bit-serial rescaling needs."""
    return {
        "t": _tiling(op.tiling),
        "dots": stream_context(op.dots),
        "codes": stream_context(op.codes),
        "sums": stream_context(op.sums),
        "groups": op.groups,
        "signed": op.is_signed,
    }


def rescale(op: RescaleOp) -> Context:
    """What the template of a rescaling needs."""
    return {
        "t": _tiling(op.tiling),
        "totals": optional_context(op.totals),
        "bias": optional_context(op.bias),
        "dots": stream_context(op.dots),
        "factors": stream_context(op.factors),
        "scales": stream_context(op.scales),
        "results": stream_context(op.results_),
    }


CONTEXTS: dict[type[ProcessOp], Callable[[Any], Context]] = {
    QuantizeOp: quantize,
    ReadOp: read,
    BuildTablesOp: build_tables,
    ArrayOp: array,
    ScaleGroupsOp: scale_groups,
    RescaleOp: rescale,
    WriteOp: write,
    **ROWS,
}
