"""SystemVerilog of modules, through CIRCT in a subprocess."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from nybble.backends.fpga.rtl.emit import Module
from nybble.backends.fpga.rtl.errors import RtlError

SERVE = "from nybble.backends.fpga.rtl.circt_worker import serve; serve()"
SECONDS = 300


def system_verilog(modules: Sequence[Module]) -> str:
    """The modules as SystemVerilog; raises RtlError without CIRCT, or with what it says."""
    if find_spec("circt") is None:
        raise RtlError("CIRCT is not installed", accepted="pip install 'nybble[fpga]'")
    text = "\n".join(module.text() for module in modules)
    command = [sys.executable, "-P", "-c", SERVE]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if "rror" in line]
        raise RtlError(f"CIRCT rejects the circuit: {words[0] if words else done.returncode}")
    return done.stdout
