"""Compiling an MLIR file of operators for a GPU: PTX and a manifest in a folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from xdsl.dialects.builtin import ModuleOp

from nybble.backends.gpu.dataflows import ROWS
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.program import Compiled, compile_program, described
from nybble.backends.gpu.ptxas import Assembled, assemble
from nybble.backends.llvm.toolchain import versions
from nybble.backends.llvm.workers import close_idle
from nybble.passes.options import Option
from nybble.passes.targets import Product
from nybble.tools.diagnostics import UsageError
from nybble.tools.folder import check_folder, write_folder
from nybble.tools.gpu_model import gpu_mode, write_gpu_model
from nybble.tools.kernels_file import dump, stages_of
from nybble.tools.mlir_file import FIRST, advance, is_mlir, read_module
from nybble.tools.target import ChosenTarget, CompileRequest

MANIFEST = "manifest.json"
"""The file that tells a folder of ours: target, compiler, and each kernel with its launch."""
SCHEDULED = "scheduled"
"""The last stage of IR; the artifact comes next."""


@dataclass(frozen=True)
class GpuOptions:
    """What a compilation for a GPU may choose. activations: a mode of `dataflows.MODES`."""

    target: ChosenTarget
    activations: str = "f16"
    dataflow: str = ""

    def pass_options(self) -> Mapping[str, Option]:
        """The options that passes know by these names."""
        return {
            "target": self.target.name,
            "isa": self.target.level,
            "activations": self.activations,
            "prefill": self.activations,
            "dataflow": self.dataflow,
        }


def compile_for_gpu(request: CompileRequest) -> None:
    """Write a directory: of a model, or of an MLIR file the IR of the last stage and PTX."""
    if request.json_file is not None:
        raise UsageError(
            f"--json with target {request.target}", accepted="the manifest in the directory"
        )
    if not is_mlir(request.model):
        write_gpu_model(request)
        return
    request.refuse("emit", "activations")
    mode = gpu_mode(request.target, request.given["activations"])
    options, output = GpuOptions(request.target, mode), request.folder()
    first, stop = request.start or FIRST, request.stop
    last = stop or SCHEDULED
    if last not in (FIRST, "fused", SCHEDULED):
        raise UsageError(
            f"stage '{last}' of target {options.target}", accepted=f"up to {SCHEDULED}"
        )
    check_folder(output, MANIFEST)
    reached = first
    stages = stages_of(first, last)
    module = read_module(request.model, first, request.session)
    for stage in stages:
        advance(module, reached, stage.name, options)
        reached = stage.name
    described_by = {"stage": last, "target": str(options.target), "compiler": versions()}
    files = dump(module, last)
    if stop is None:
        kernels = compile_kernels(module, options.target.level)
        files |= {f"{one.image.name}.ptx": one.image.ptx.encode() for one in kernels}
        if request.given["emit"]:
            files |= {f"{one.image.name}.cu": one.source().encode() for one in kernels}
        found = {one.image.name: assembled(one.image) for one in kernels}
        files |= {
            f"{name}.cubin": one.cubin for name, one in found.items() if isinstance(one, Assembled)
        }
        listed = [{**described(one.image), **in_manifest(found[one.image.name])} for one in kernels]
        described_by |= {"kernels": listed}
    files[MANIFEST] = (json.dumps(described_by, indent=1) + "\n").encode()
    write_folder(output, files, MANIFEST)


def compile_kernels(module: ModuleOp, arch: str) -> list[Compiled]:
    """The kernels of a module at the scheduled stage."""
    try:
        return compile_program(module, arch)
    finally:
        close_idle()


def assembled(image: KernelImage) -> Assembled | str:
    """What `ptxas` makes of a kernel, or why it makes nothing: the PTX is what runs anywhere."""
    try:
        return assemble(image.ptx, image.arch)
    except GpuError as error:
        return str(error)


def in_manifest(found: Assembled | str) -> dict[str, object]:
    """What a manifest has of it: registers and bytes, as the cubin is a file of its own; or that
    there is none, and why."""
    if isinstance(found, str):
        return {"assembled": None, "not_assembled": found}
    fields = asdict(found)
    del fields["cubin"]
    return {"assembled": fields}


def buffers_of(product: Product, dataflow: str) -> dict[str, int]:
    """Name -> bytes of the buffers of a product's kernel; NybbleError if it has none."""
    row = next(one for one in ROWS if dataflow == one.op.DATAFLOW)
    return {one.name: one.bytes for one in row.spec(product, product.isa).parameters}
