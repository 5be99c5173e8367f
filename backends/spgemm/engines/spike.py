"""Programs on bare harts of Spike, the reference simulator of the RISC-V project.

It runs as a process of its own. Instructions of `+xspgemm` and the DMA device are Python that Spike
loads: `spike_extension.py`.
"""

import subprocess
import sys
from importlib import util
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from nybble.backends.spgemm.engines.outcome import EngineError, Outcome, patience, read_report
from nybble.backends.spgemm.image import SCRATCHPAD, Image, bind
from nybble.backends.spgemm.problem import PROBLEM
from nybble.backends.spgemm.rv.runtime import DMA_BASE, TEXT

PACKAGE = "pip install 'nybble[spgemm]'"
ISA = "rv64imafd_zicsr"
PAGE = 4096
EXTENSION = "spike_extension"


def check() -> None:
    """Raise EngineError where Spike, or the device tree compiler that it calls, is missing."""
    _executable()
    if which("dtc") is None:
        raise EngineError("dtc is not installed", accepted="apt-get install device-tree-compiler")


def _executable() -> Path:
    package = util.find_spec("riscv")
    path = Path(package.origin or "").parent / "data" / "bin" / "spike" if package else None
    if path is None or not path.is_file():
        raise EngineError("spike is not installed", accepted=PACKAGE)
    return path


def run(elf: bytes, image: Image, harts: int, scratchpad: int = 0) -> Outcome:
    """Run a program on an image whose setup reports; raises EngineError.

    scratchpad: its bytes, of a machine that has one and executes `+xspgemm`; else 0.
    """
    check()
    memory = f"{TEXT:#x}:{_pages(PROBLEM - TEXT + image.size):#x}"
    options = [f"-p{harts}", f"--isa={ISA}"]
    command = [str(_executable())]
    if scratchpad:
        command = [sys.executable, "-P", "-m", "riscv"]  # it loads Python into Spike
        memory = f"{SCRATCHPAD:#x}:{_pages(scratchpad):#x},{memory}"
        options += [
            f"--extlib={Path(__file__).with_name(EXTENSION)}.py", "--extension=xspgemm",
            f"--device=xspgemm_dma,{DMA_BASE:#x}",
        ]  # fmt: skip
    seconds = patience(harts)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "program.elf"
        path.write_bytes(bind(elf, image))
        command += [*options, f"-m{memory}", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise EngineError(f"spike did not finish in {seconds:g} s") from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise EngineError(f"spike ended with status {done.returncode}: {words}")
    return read_report(image, done.stdout, {})


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE
