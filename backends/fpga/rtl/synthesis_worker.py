"""Runs in a process of its own: a Verilog file and its top on the command line, counts on stdout.

A second design in one process of pyosys gives wrong counts, so there is one process for each.
"""

import os
import tempfile
from pathlib import Path


def serve(verilog: str, top: str, options: str) -> None:
    """One synthesis for UltraScale+; what Yosys prints goes to stderr, the statistics to stdout."""
    from pyosys import libyosys as yosys  # pyright: ignore[reportAttributeAccessIssue]

    stdout = os.dup(1)
    os.dup2(2, 1)  # Yosys prints by itself
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "stat.json"
        design = yosys.Design()
        for command in (
            f"read_verilog -sv {verilog}",
            f"synth_xilinx -family xcup -noiopad {options} -top {top}",
            f"tee -q -o {found} stat -json -tech xilinx",
        ):
            yosys.run_pass(command, design)
        with os.fdopen(stdout, "wb") as statistics:  # whole, where `os.write` may stop early
            statistics.write(found.read_bytes())
