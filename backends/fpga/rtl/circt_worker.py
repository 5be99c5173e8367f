"""Runs in a process of its own: IR of CIRCT's dialects on stdin, SystemVerilog on stdout.

CIRCT's bindings carry an MLIR of their own, and some of its passes end the process on bad input.
"""

import io
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

OPTIONS = "disallowPackedArrays,disallowLocalVariables,locationInfoStyle=none"
_TO_VERILOG = (
    "canonicalize,cse,any(lower-seq-hlmem),lower-seq-to-sv,hw.module(hw-cleanup,prettify-verilog)"
)
PIPELINES: Mapping[str, str] = {
    "hardware": f"builtin.module({_TO_VERILOG})",
    "loop": "builtin.module(lower-cf-to-handshake,handshake-lower-extmem-to-hw,canonicalize,"
    "handshake.func(handshake-materialize-forks-sinks,handshake-insert-buffers{strategy=cycles}),"
    f"lower-handshake-to-hw,lower-esi-types,lower-esi-ports,lower-esi-to-hw,{_TO_VERILOG})",
}
"""Passes by what is given."""
LOADS_LOOPS = "builtin.module(any(convert-affine-to-loopschedule))"
"""The bindings know `func`, `cf`, `arith` and `memref` only after a pass that needs them."""


def serve(kind: str) -> None:
    """One request; an error is one line on stderr and exit code 1."""
    circt: Any = import_module("circt")
    ir: Any = import_module("circt.ir")
    passmanager: Any = import_module("circt.passmanager")
    context = ir.Context()
    circt.register_dialects(context)
    with context, ir.Location.unknown():
        passmanager.PassManager.parse(LOADS_LOOPS).run(ir.Module.parse("").operation)
        module = ir.Module.parse(sys.stdin.read())
        module.operation.attributes["circt.loweringOptions"] = ir.StringAttr.get(OPTIONS)
        passmanager.PassManager.parse(PIPELINES[kind]).run(module.operation)
        text = io.StringIO()
        circt.export_verilog(module, text)
    sys.stdout.write(text.getvalue())
