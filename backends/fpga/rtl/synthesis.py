"""What a circuit takes of an UltraScale+ device, as Yosys maps it; kept by content.

Hierarchy is kept: each module is synthesized once and counted as often as it is used. Yosys does
not pack two functions into one LUT6 as the vendor's tools do, so both sides of a comparison are
counted a little high. No placement and no clock is known here.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.tool import run_tool

SERVE = (
    "import sys; from nybble.backends.fpga.rtl.synthesis_worker import serve; serve(*sys.argv[1:])"
)
_LUTS = {
    **{f"LUT{inputs}": 1 for inputs in range(1, 7)},
    "INV": 1, "SRL16E": 1, "SRLC32E": 1, "RAM32X1D": 2, "RAM64X1D": 2, "RAM32X1S": 1,
    "RAM64X1S": 1, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8,
}  # fmt: skip
"""LUTs that a cell takes (UG974: a RAM32M16 is the eight LUTs of a slice)."""
_REGISTERS = ("FDRE", "FDSE", "FDCE", "FDPE")
_BLOCKS = {"RAMB36E2": 2, "RAMB18E2": 1}
_FREE = ("CARRY4", "CARRY8", "MUXF7", "MUXF8", "MUXF9", "BUFG")
"""Cells beside the LUTs of a slice."""


@dataclass(frozen=True)
class Resources:
    """luts: all, those of RAM (lutram) and shift registers included; brams: of 18 kbit."""

    luts: int
    lutram: int
    registers: int
    dsps: int
    brams: int

    def as_json(self) -> dict[str, int]:
        """As a row of a report has it."""
        return asdict(self)


def synthesized(verilog: str, top: str, cache: Cache, options: str = "") -> Resources:
    """The resources of a circuit; options: more words for `synth_xilinx`, such as -nodsp.

    Raises RtlError without pyosys, or with what Yosys says.
    """
    if find_spec("pyosys") is None:
        raise RtlError("pyosys is not installed", accepted="pip install 'nybble[fpga]'")
    parts = ("synthesis", version("pyosys"), verilog, top, options)
    key = hashlib.blake2b("\0".join(parts).encode(), digest_size=32).hexdigest()
    found = cache.get(key)
    if found is None:
        found = _run(verilog, top, options)
        cache.put(key, found)
    cells = json.loads(found)["design"]["num_cells_by_type"]
    return counted(cells, verilog)


def counted(cells: Mapping[str, int], verilog: str) -> Resources:
    """Resources of cells by type; raises RtlError for a cell that is not known."""
    modules = {
        line.split()[1].rstrip("(") for line in verilog.splitlines() if line[:7] == "module "
    }
    known = {*_LUTS, *_REGISTERS, *_BLOCKS, *_FREE, "DSP48E2"}
    odd = [cell for cell in cells if cell not in known and cell not in modules]
    if odd:
        raise RtlError(f"Yosys gave cells that are not counted: {', '.join(odd)}")
    return Resources(
        sum(count * cells.get(cell, 0) for cell, count in _LUTS.items()),
        sum(n * cells.get(c, 0) for c, n in _LUTS.items() if c.startswith("RAM")),
        sum(cells.get(cell, 0) for cell in _REGISTERS),
        cells.get("DSP48E2", 0),
        sum(count * cells.get(cell, 0) for cell, count in _BLOCKS.items()),
    )


def _run(verilog: str, top: str, options: str) -> bytes:
    with tempfile.NamedTemporaryFile("w", suffix=".sv") as file:
        file.write(verilog)
        file.flush()
        command = [sys.executable, "-P", "-c", SERVE, file.name, top, options]
        done = run_tool("Yosys", command)
    if done.returncode != 0 or not done.stdout.startswith(b"{"):
        wrong = [line for line in done.stderr.decode().splitlines() if "ERROR" in line]
        raise RtlError(
            f"Yosys cannot synthesize '{top}': {wrong[-1] if wrong else done.returncode}"
        )
    return done.stdout
