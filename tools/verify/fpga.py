"""`nybble verify --target fpga`: emitted C++ by C simulation against the numpy references.

A few kernels are drawn, products and families of `fpga_rows`, and compiled into one program; the
cases are theirs in turn, with random weights and activations. Results must be those of the kernel's
references bit by bit, and these must be near what the operators are in f64.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nybble.backends.fpga.csim.build import Case, Simulation, build
from nybble.backends.fpga.dataflows import checked_design
from nybble.backends.fpga.design import Design
from nybble.backends.fpga.elements import BIPOLAR_MODES, DATAFLOWS, MODE, XNOR, element_of
from nybble.backends.fpga.network import network
from nybble.backends.fpga.packing import pack, pack_activation, unpack_results
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.words import U8
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.numpy_ref.quantize import bipolar_values, dequantize_rows, quantize_rows
from nybble.passes.targets import Product
from nybble.tools.target import VerifyRequest
from nybble.tools.verify.answer import SHOWN, check_dataflow, counts, failures, tell
from nybble.tools.verify.fpga_rows import DrawnRows, TriedRows, draw_families, make_rows

F32 = npt.NDArray[np.float32]
FORMATS = (
    "w1",
    "b1_58",
    "w2g32",
    "w3g64",
    "w4g32",
    "q4_0",
    "tq2_0",
    "w2",
    "fp4",
    *(f"bip{planes}:g=32:s=f32" for planes in (1, 2, 3, 4)),
    "q4_1",
    "w4g32z",
    "w2g64m",
    "w8",
    "bitmod3g32",
    "bitmod4[5.0,-5.0,8.0,-8.0]:g=64x2:s=u4*f16",
    "i6:g=64x2:s=u6-32*f16",
    "i8:g=32:s=f32:sparse=2of4",
    *(f"i8:g=32:s=f32:sparse={keep}of16.block16" for keep in (2, 4, 8)),
)
PRODUCT = "mpgemm.matmul"
KERNELS = 8
"""Kernels of a run: what is slow is to compile them."""
PER_CALL = 2000
"""Cases that are sent to the program at once."""
DATA = ("normal", "extreme", "zero", "denormal", "infinite")
TOLERANCE = 1e-5
"""Of the sum of magnitudes: roundings of f32, group by group."""


@dataclass(frozen=True)
class Drawn:
    """A kernel with its design and dataflow."""

    dataflow: str
    design: Design
    kernel: KernelOp
    family: str = PRODUCT


@dataclass(frozen=True)
class Tried:
    """A case: its kernel and what it reads. near: the f64 product; bound: its terms' magnitudes."""

    number: int
    drawn: Drawn
    data: str
    memories: tuple[U8, ...]
    near: F32
    bound: F32

    @property
    def kernel(self) -> str:
        """The kernel's name."""
        return self.drawn.kernel.sym_name.data

    def judged(self, written: Sequence[U8]) -> dict[str, object]:
        """See `judged`."""
        return judged(self, written[0])

    def report(self, error: float, fault: str) -> dict[str, object]:
        """The case in the words of the command's report."""
        tiling = self.drawn.design.tiling
        return {
            "case": self.number,
            "family": PRODUCT,
            "format": self.drawn.design.spec,
            "shape": [tiling.rows.data, tiling.cols.data],
            "tokens": tiling.tokens.data,
            "dataflow": self.drawn.dataflow,
            "bias": self.drawn.design.has_bias,
            "data": self.data,
            "error": error,
            "fault": fault,
        }


def verify_on_fpga(request: VerifyRequest) -> int:
    """Print or write the report; the exit code."""
    request.refuse("op", "formats", "dataflow")
    drawn = draw_kernels(request)
    cases = (make(drawn[n % len(drawn)], n, request.seed) for n in request.cases)
    with tempfile.TemporaryDirectory() as folder:
        simulation = build([one.kernel for one in drawn], Path(folder))
        reports = list(run(simulation, list(cases)))
    faulty = [one for one in reports if one["fault"]]
    found = {
        "target": str(request.target), "seed": request.seed, "kernels": len(drawn),
        "families": sorted({one.family for one in drawn}),
        "cases": len(reports), "failed": len(faulty),
        "worst": max(reports, key=lambda one: float(str(one["error"]))),
        "failures": faulty[:SHOWN],
    }  # fmt: skip
    told = [*counts(found, ("kernels", "families", "cases", "failed")), *failures(found)]
    return tell(found, told, request.json_file)


def draw_kernels(request: VerifyRequest) -> list[Drawn | DrawnRows]:
    """What is asked for, half products and half others by default; UsageError for odd options."""
    op, asked = request.given["op"], request.given["formats"]
    flow, level = request.given["dataflow"] or "", request.target.level
    check_dataflow(flow, DATAFLOWS)
    if op not in (None, PRODUCT):
        request.refuse("op")
        return [*draw_families(request.seed, KERNELS, level, (op,))]
    specs = tuple(asked.split(",")) if asked else usual_formats(flow)
    products = draw(request.seed, specs, flow, level)
    if asked or flow or op:
        return [*products]
    return [*products[: KERNELS // 2], *draw_families(request.seed, KERNELS // 2, level)]


def usual_formats(dataflow: str) -> tuple[str, ...]:
    """The formats that are drawn where none is asked for: those that a dataflow takes."""
    if not dataflow:
        return FORMATS
    return tuple(spec for spec in FORMATS if is_taken(dataflow, formats.get(spec)))


def is_taken(dataflow: str, description: formats.Format) -> bool:
    """Whether a dataflow has an element for a format."""
    try:
        element_of(dataflow, description, modes_of(dataflow)[0])
    except NybbleError:
        return False
    return True


def modes_of(dataflow: str) -> tuple[str, ...]:
    """The activations that a dataflow takes."""
    return tuple(BIPOLAR_MODES) if dataflow == XNOR else (MODE,)


def draw(seed: int, specs: Sequence[str], dataflow: str, device: str) -> list[Drawn]:
    """Kernels of small odd shapes, each of a format and a dataflow that takes it."""
    random = np.random.default_rng(seed)
    found: list[Drawn] = []
    for index in range(KERNELS):
        description = formats.get(specs[int(random.integers(len(specs)))])
        rows = int(random.choice([1, 3, 7, 17, 33]))
        rows = -(-rows // description.row_step) * description.row_step
        step = description.block
        cols = step * int(random.integers(1, max(96 // step, 1) + 1))
        tokens = int(random.choice([1, 1, 2, 5]))
        flows = [one for one in DATAFLOWS if is_taken(one, description)]
        flow = dataflow or (flows or DATAFLOWS)[int(random.integers(max(len(flows), 1)))]
        modes = modes_of(flow)
        mode = modes[int(random.integers(len(modes)))]
        product = Product(description, rows, cols, tokens, mode, device)
        made = checked_design(flow, product, device, bool(random.integers(2)))
        found.append(Drawn(flow, made, network(f"k{index}", made)))
    return found


def make(drawn: Drawn | DrawnRows, number: int, seed: int) -> Tried | TriedRows:
    """A case of a kernel: everything follows from the seed and the number."""
    random = np.random.default_rng([seed, number])
    if isinstance(drawn, DrawnRows):
        return make_rows(drawn, number, random)
    design, data = drawn.design, str(random.choice(DATA))
    tiling = design.tiling
    weight = draw_weight(design, data, random)
    x = random.standard_normal((tiling.tokens.data, tiling.cols.data)).astype(np.float32)
    if data == "extreme":
        x = np.where(x > 0, np.float32(1), np.float32(-1))
    elif data == "zero":
        x[random.random(len(x)) < 0.5] = 0
    elif data == "denormal":
        x *= np.float32(1e-39)
    elif data == "infinite":
        x[0, int(random.integers(x.shape[1]))] = random.choice([np.inf, -np.inf, np.nan])
    bias = random.standard_normal(tiling.rows.data).astype(np.float32)
    packed = pack(design, weight, bias if design.has_bias else None)
    with np.errstate(all="ignore"):
        values = rounded(design, x).astype(np.float64)
        added = bias.astype(np.float64) * design.has_bias
        near = values @ weight.dequantize().astype(np.float64).T + added
        bound = np.abs(values) @ magnitudes(weight).T + np.abs(added)
    memories = (pack_activation(design, x), *packed.memories)
    return Tried(number, drawn, data, memories, near.astype(np.float32), bound.astype(np.float32))


def rounded(design: Design, x: F32) -> F32:
    """Activations f32 [tokens, cols] as a kernel takes them."""
    planes = design.element.activation_planes
    if planes:
        return bipolar_values(x, planes)
    found = quantize_rows(x, x.shape[1])
    return dequantize_rows(found.q, found.s)


def magnitudes(weight: Weight) -> npt.NDArray[np.float64]:
    """f64 [rows, cols]: what of a weight is added up, scale times code and zero by themselves."""
    dense = np.abs(weight.dequantize().astype(np.float64))
    if weight.zero is None:
        return dense
    group = dense.shape[1] // weight.zero.shape[1]
    return dense + 2 * np.repeat(np.abs(weight.zero), group, axis=1)


def draw_weight(design: Design, data: str, random: np.random.Generator) -> Weight:
    """A random weight of a design's format."""
    tiling = design.tiling
    values = random.standard_normal((tiling.rows.data, tiling.cols.data)).astype(np.float32)
    if data == "extreme":
        values = np.where(values > 0, np.float32(1), np.float32(-1))
    elif data == "zero":
        values[random.random(len(values)) < 0.5] = 0
    return design.description.quantize(values)


def run(simulation: Simulation, cases: Sequence[Tried | TriedRows]) -> Iterator[dict[str, object]]:
    """The report of each case; the error is the largest share of what may be lost."""
    for first in range(0, len(cases), PER_CALL):
        some = cases[first : first + PER_CALL]
        asked = [Case(one.kernel, one.memories) for one in some]
        for case, ran in zip(some, simulation.run(asked), strict=True):
            yield case.judged(ran.written)


def judged(case: Tried, found: U8) -> dict[str, object]:
    """Hold what a kernel wrote against its references, and these against the product."""
    design = case.drawn.design
    (wanted,) = case.drawn.kernel.run(*case.memories, np.zeros_like(found))
    got, right = unpack_results(design, found), unpack_results(design, wanted)
    error = shares_lost(right, case.near, case.bound)
    if not np.array_equal(got, right, equal_nan=True):
        token, row = (int(i[0]) for i in np.nonzero(~((got == right) | (got != got))))
        fault = f"result[{token}, {row}] is {got[token, row]!r}, not {right[token, row]!r}"
        return case.report(error, fault)
    return case.report(error, "the references are far from the product" if error > 1 else "")


def shares_lost(right: F32, near: F32, bound: F32) -> float:
    """The largest difference from the product, as a share of what may be lost."""
    with np.errstate(all="ignore"):
        lost = np.abs(right.astype(np.float64) - near) / (TOLERANCE * bound + 1e-37)
    finite = np.isfinite(near)
    return float(np.max(lost, where=finite, initial=0.0))
