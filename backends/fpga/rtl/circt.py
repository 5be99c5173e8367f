"""SystemVerilog through CIRCT in a subprocess, of modules and of loops."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from nybble.backends.fpga.rtl.emit import Module
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.tool import run_tool

SERVE = "import sys; from nybble.backends.fpga.rtl.circt_worker import serve; serve(sys.argv[1])"
HARDWARE = "hardware"
"""What is given is `hw`, `comb` and `seq`."""
LOOP = "loop"
"""What is given is functions of `cf`, `arith` and `memref`."""


def system_verilog(modules: Sequence[Module]) -> str:
    """The modules as SystemVerilog; raises RtlError without CIRCT, or with what it says."""
    return exported("\n".join(module.text() for module in modules), HARDWARE)


def exported(text: str, kind: str) -> str:
    """SystemVerilog of IR that is HARDWARE or a LOOP; raises RtlError as `system_verilog` does."""
    if find_spec("circt") is None:
        raise RtlError("CIRCT is not installed", accepted="pip install 'nybble[fpga]'")
    command = [sys.executable, "-P", "-c", SERVE, kind]
    done = run_tool("CIRCT", command, text.encode())
    if done.returncode != 0:
        words = [line for line in done.stderr.decode().splitlines() if "rror" in line]
        raise RtlError(f"CIRCT rejects the circuit: {words[-1] if words else done.returncode}")
    return done.stdout.decode()
