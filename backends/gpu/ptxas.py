"""NVIDIA's assembler on PTX: the cubin, what it needs of the machine, its instructions as text.

`ptxas` is taken from the PATH, from CUDA's usual folder or from the wheel `nvidia-cuda-nvcc`; the
disassemblers also from the wheel `triton`, which carries them.
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nybble.backends.gpu.driver import GpuError, check_real

_TOOLKIT = Path("/usr/local/cuda/bin")
_WHEELS = (("nvidia", "cu13/bin"), ("triton", "backends/nvidia/bin"))
_REMEDY = {
    "ptxas": "pip install nvidia-cuda-nvcc==13.0.88, or a CUDA toolkit on the PATH",
    "nvdisasm": "a CUDA toolkit on the PATH, or pip install triton",
}
_FIGURES = {
    "registers": re.compile(r"Used (\d+) registers"),
    "stack": re.compile(r"(\d+) bytes stack frame"),
    "spill_stores": re.compile(r"(\d+) bytes spill stores"),
    "spill_loads": re.compile(r"(\d+) bytes spill loads"),
    "shared": re.compile(r"(\d+) bytes smem"),
    "barriers": re.compile(r"used (\d+) barriers"),
}
_SERIALIZED = "wgmma.mma_async instructions are serialized"
_OPCODE = re.compile(r"^\s*(?:/\*[0-9a-f]+\*/)?\s*(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)")


@dataclass(frozen=True)
class Assembled:
    """A cubin of one kernel and what ptxas said of it; shared is static, all sizes in bytes.

    serialized: whether ptxas waits for each product of warpgroups before the next.
    """

    cubin: bytes
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int
    barriers: int
    serialized: bool = False

    @property
    def spills(self) -> int:
        """Bytes stored and loaded because registers ran out."""
        return self.spill_stores + self.spill_loads


def _places(name: str) -> Iterator[Path]:
    if found := shutil.which(name):
        yield Path(found)
    yield _TOOLKIT / name
    for package, folder in _WHEELS:
        spec = find_spec(package)
        roots = spec.submodule_search_locations if spec else None
        yield from (Path(root) / folder / name for root in roots or ())


@cache
def tool(name: str) -> Path:
    """The program `name` of the CUDA toolkit, "ptxas" or "nvdisasm"; raises GpuError."""
    for place in _places(name):
        if place.is_file():
            return place
    raise GpuError(f"the program {name} is not installed", accepted=_REMEDY[name])


def assemble(ptx: str, arch: str, *, options: tuple[str, ...] = ()) -> Assembled:
    """The cubin of one kernel's PTX for `arch`, "sm_90a" and alike; raises GpuError."""
    check_real(arch)
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        command = [tool("ptxas"), "-v", f"-arch={arch}", *options, source, "-o", cubin]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if "error" in line or "fatal" in line]
            first = said[0] if said else f"exit status {done.returncode}"
            raise GpuError(f"ptxas refuses the kernel for {arch}: {first.replace(folder, '')}")
        serialized = _SERIALIZED in done.stderr
        return Assembled(cubin.read_bytes(), **figures(done.stderr), serialized=serialized)


def figures(report: str) -> dict[str, int]:
    """What `ptxas -v` reports, a number for each field of Assembled; 0 for what it leaves out."""
    found = {name: pattern.search(report) for name, pattern in _FIGURES.items()}
    return {name: int(match[1]) if match else 0 for name, match in found.items()}


def disassemble(cubin: bytes) -> str:
    """The instructions of a cubin (SASS), by nvdisasm; raises GpuError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [tool("nvdisasm"), "-c", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GpuError(f"nvdisasm failed: {done.stderr.strip()[:200]}")
    return done.stdout


def opcodes(sass: str) -> Counter[str]:
    """How often each instruction stands in a listing, with its suffixes: "LDG.E.128", "HMMA.16..".

    >>> opcodes("        /*0010*/  @!P0 LDG.E.128 R4, [R2.64] ;")
    Counter({'LDG.E.128': 1})
    """
    return Counter(found[1] for line in sass.splitlines() if (found := _OPCODE.match(line)))
