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
from nybble.dialects.fpga.processes import ProcessOp, QuantizeOp, ReadOp, WriteOp, row_words
from nybble.dialects.fpga.scales import RescaleOp, ScaleGroupsOp
from nybble.dialects.fpga.serial import SerialAttr
from nybble.dialects.fpga.types import MemoryType, StreamType
from nybble.dialects.fpga.xnor import XnorAttr
from nybble.dialects.numpy_ref.quantize import PARTIAL, SMALLEST_AMAX

Context = dict[str, Any]
COMMON = "nybble_hls.h"
"""The header that every kernel includes."""


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
    context = {
        "name": name,
        "what": f"for {kernel.device.data}, {len(calls)} processes",
        "arguments": arguments,
        "memories": argument_memories(kernel),
        "streams": [_stream(one) | {"name": names[one]} for one in kernel.streams],
        "processes": [process_text(called, op) for called, op in calls],
        "calls": [
            {"name": called, "arguments": ", ".join(names[v] for v in (*op.operands, *op.results))}
            for called, op in calls
        ],
    }
    return {
        f"{name}.cpp": render("kernel", context),
        f"{name}.h": render("header", context),
        COMMON: files("nybble.backends.fpga.hls").joinpath(f"templates/{COMMON}").read_text(),
    }


def argument_memories(kernel: KernelOp) -> list[Context]:
    """The kernel's arguments: name, words, bits of a word, and whether it is written."""
    names, written = names_of(kernel), kernel.outputs
    return [
        {
            "name": names[one],
            "words": _memory(one).words.data,
            "bits": _memory(one).bits.data,
            "written": one in written,
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
    return f"{const}ap_uint<{_memory(value).bits.data}>* {names[value]}"


def _memory(value: SSAValue) -> MemoryType:
    assert isinstance(value.type, MemoryType)
    return value.type


def _stream(value: SSAValue) -> Context:
    type_ = value.type
    assert isinstance(type_, StreamType)
    word = f"ap_uint<{type_.word_bits}>"
    return {
        "type": word,
        "stream": f"hls::stream<{word}>",
        "bits": type_.element_bits,
        "depth": type_.depth.data,
    }


def _tiling(tiling: TilingAttr) -> Context:
    plain = {name: getattr(tiling, name).data for name in tiling.FIELDS}
    derived = ("tile", "tiles", "tiles_per_group", "groups", "row_blocks", "passes", "sums")
    return plain | {name: getattr(tiling, name) for name in derived}


def _memory_context(value: SSAValue) -> Context:
    return {"type": f"ap_uint<{_memory(value).bits.data}>"}


def quantize(op: QuantizeOp) -> Context:
    """What the template of a quantization needs."""
    return {
        "t": _tiling(op.tiling),
        "memory": _memory_context(op.memory),
        "columns": _stream(op.columns),
        "scales": _stream(op.scales),
        "totals": None if op.totals is None else _stream(op.totals),
        "row_words": row_words(op.tiling.cols.data),
        "planes": op.bipolar,
        "top": f"{float(2**op.bipolar - 1 if op.bipolar else LARGEST_ACTIVATION)}f",
        "share": f"{float(np.float32(1 / op.tiling.cols.data))!r}f",
        "partial": PARTIAL,
        "smallest": f"{float(SMALLEST_AMAX)!r}f",
        "finite": f"{float(np.finfo(np.float32).max)!r}f",
    }


def read(op: ReadOp) -> Context:
    """What the template of a reader needs."""
    bits = op.share * op.type.element_bits
    starts = range(0, op.type.word_bits, bits)
    parts = [
        {"low": low, "high": min(low + bits, op.type.word_bits) - 1, **_memory_context(memory)}
        for low, memory in zip(starts, op.memories, strict=True)
    ]
    words = _memory(op.memories[0]).words.data
    repeat = op.repeat.value.data
    return {"memories": parts, "stream": _stream(op.stream), "words": words, "repeat": repeat}


def write(op: WriteOp) -> Context:
    """What the template of a writer needs."""
    memory = _memory_context(op.memory)
    return {"memory": memory, "stream": _stream(op.stream), "words": op.type.words.data}


def build_tables(op: BuildTablesOp) -> Context:
    """What the template of a table builder needs."""
    ways, element = op.ways.value.data, op.element
    rows = ("{" + ", ".join(map(str, row)) + "}" for row in element.taken().tolist())
    tile_blocks = op.tiling.lanes.data // ways
    return {
        "t": _tiling(op.tiling),
        "columns": _stream(op.columns),
        "tables": _stream(op.tables),
        "sums": None if op.sums is None else _stream(op.sums),
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
        "stationary": _stream(op.stationary),
        "weights": _stream(op.weights),
        "sums": None if op.sums is None else _stream(op.sums),
        "indices": None if op.indices is None else _stream(op.indices),
        "dots": _stream(op.dots),
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
        "dots": _stream(op.dots),
        "codes": _stream(op.codes),
        "sums": _stream(op.sums),
        "groups": op.groups,
        "signed": op.is_signed,
    }


def rescale(op: RescaleOp) -> Context:
    """What the template of a rescaling needs."""
    return {
        "t": _tiling(op.tiling),
        "totals": None if op.totals is None else _stream(op.totals),
        "bias": None if op.bias is None else _stream(op.bias),
        "dots": _stream(op.dots),
        "factors": _stream(op.factors),
        "scales": _stream(op.scales),
        "results": _stream(op.results_),
    }


CONTEXTS: dict[type[ProcessOp], Callable[[Any], Context]] = {
    QuantizeOp: quantize,
    ReadOp: read,
    BuildTablesOp: build_tables,
    ArrayOp: array,
    ScaleGroupsOp: scale_groups,
    RescaleOp: rescale,
    WriteOp: write,
}
