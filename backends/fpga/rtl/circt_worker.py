"""Runs in a process of its own: modules of CIRCT's dialects on stdin, SystemVerilog on stdout.

CIRCT's bindings carry an MLIR of their own, and some of its passes end the process on bad input.
"""

import io
import sys
from importlib import import_module
from typing import Any

OPTIONS = "disallowPackedArrays,disallowLocalVariables,locationInfoStyle=none"
PIPELINE = (
    "builtin.module(canonicalize,cse,any(lower-seq-hlmem),lower-seq-to-sv,"
    "hw.module(hw-cleanup,prettify-verilog))"
)


def serve() -> None:
    """One request; an error is one line on stderr and exit code 1."""
    circt: Any = import_module("circt")
    ir: Any = import_module("circt.ir")
    passmanager: Any = import_module("circt.passmanager")
    context = ir.Context()
    circt.register_dialects(context)
    with context, ir.Location.unknown():
        module = ir.Module.parse(sys.stdin.read())
        module.operation.attributes["circt.loweringOptions"] = ir.StringAttr.get(OPTIONS)
        passmanager.PassManager.parse(PIPELINE).run(module.operation)
        text = io.StringIO()
        circt.export_verilog(module, text)
    sys.stdout.write(text.getvalue())
