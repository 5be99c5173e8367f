"""SystemVerilog of modules, through CIRCT in a subprocess."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from nybble.backends.fpga.rtl.emit import Module
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.tool import run_tool

SERVE = "from nybble.backends.fpga.rtl.circt_worker import serve; serve()"


def system_verilog(modules: Sequence[Module]) -> str:
    """The modules as SystemVerilog; raises RtlError without CIRCT, or with what it says."""
    if find_spec("circt") is None:
        raise RtlError("CIRCT is not installed", accepted="pip install 'nybble[fpga]'")
    text = "\n".join(module.text() for module in modules)
    command = [sys.executable, "-P", "-c", SERVE]
    done = run_tool("CIRCT", command, text.encode())
    if done.returncode != 0:
        words = [line for line in done.stderr.decode().splitlines() if "rror" in line]
        raise RtlError(f"CIRCT rejects the circuit: {words[0] if words else done.returncode}")
    return done.stdout.decode()
