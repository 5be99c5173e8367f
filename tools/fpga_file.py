"""Compiling an MLIR file of operators for an FPGA: C++ for HLS and a manifest in a folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from nybble.backends.fpga.analysis import analyse
from nybble.backends.fpga.bindings import Network
from nybble.backends.fpga.dataflows import MODE
from nybble.backends.fpga.hls.emit import argument_memories
from nybble.backends.fpga.hls.project import project
from nybble.backends.fpga.lower_kernels_to_fpga import networks
from nybble.costmodel.targets.reader import find_target
from nybble.costmodel.targets.target import Target
from nybble.dialects.registry import make_context
from nybble.passes.options import Option
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.tools.diagnostics import UsageError
from nybble.tools.files import write_output
from nybble.tools.folder import check_folder, write_folder
from nybble.tools.kernels_file import dump, stages_of
from nybble.tools.mlir_file import FIRST, advance, read_module
from nybble.tools.target import ChosenTarget, CompileRequest

MANIFEST = "manifest.json"
"""The file that tells a folder of ours: target, and each kernel with its cycles and resources."""
SCHEDULED = "scheduled"
CHAIN = "chain-kernels"
MODELLED = "cycles and resources are modelled: no vendor tool was run"


@dataclass(frozen=True)
class FpgaOptions:
    """What a compilation for an FPGA may choose. chain: whether a function is one kernel."""

    target: ChosenTarget
    dataflow: str = ""
    chain: bool = False

    def pass_options(self) -> Mapping[str, Option]:
        """The options that passes know by these names."""
        return {
            "target": self.target.name,
            "isa": self.target.level,
            "activations": MODE,
            "prefill": MODE,
            "dataflow": self.dataflow,
        }


def compile_file_for_fpga(request: CompileRequest) -> None:
    """Write a directory with the IR of the last stage and, unless it ends earlier, C++."""
    request.refuse("chain")
    options = FpgaOptions(request.target, chain=bool(request.given.get("chain")))
    output = request.folder()
    first, last = request.start or FIRST, request.stop or SCHEDULED
    if last not in (FIRST, "fused", SCHEDULED):
        raise UsageError(
            f"stage '{last}' of target {options.target}", accepted=f"up to {SCHEDULED}"
        )
    check_folder(output, MANIFEST)
    stages = stages_of(first, last)
    module, reached = read_module(request.model, first, request.session), first
    for stage in stages:
        advance(module, reached, stage.name, options)
        reached = stage.name
    if options.chain and last == SCHEDULED:
        run_passes(make_context(), module, build_pipeline(CHAIN))
    described: dict[str, Any] = {"stage": last, "target": str(options.target)}
    files = dump(module, last)
    if request.stop is None:
        device = find_target(options.target.level)
        made = list(networks(module, options.target.level))
        kernels = [one.kernel for one in made]
        files |= {name: text.encode() for name, text in project(kernels, device).items()}
        described |= {"note": MODELLED, "kernels": [describe(one, device) for one in made]}
        files |= dump(ModuleOp(kernels), "fpga")
    text = json.dumps(described, indent=1) + "\n"
    files[MANIFEST] = text.encode()
    write_folder(output, files, MANIFEST)
    if request.json_file is not None:
        write_output(request.json_file, text.encode())


def describe(made: Network, device: Target) -> dict[str, Any]:
    """What the manifest says of a kernel. seconds: of one run at the device's clock.

    inputs, outputs: which memories hold which of the operators' values, see `bindings`.
    """
    kernel = made.kernel
    found = analyse(kernel)
    assert device.clock is not None
    return {
        "name": kernel.sym_name.data,
        "modelled": True,
        "cycles": found.cycles,
        "seconds": found.cycles / device.clock.value,
        "resources": dict(found.resources),
        "available": {name: int(fact.value) for name, fact in device.resources.items()},
        "processes": dict(found.processes),
        "memories": argument_memories(kernel),
        "inputs": [one.describe() for one in made.inputs],
        "outputs": [one.describe() for one in made.outputs],
    }
