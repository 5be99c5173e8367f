"""The table of nybble's passes: name -> "module:Class", imported only when a pipeline names it."""

from typing import TypeGuard

from xdsl.passes import ModulePass

from nybble.dialects.loading import Registry

PASSES: dict[str, str] = {
    "raise-torch-to-operators": "nybble.passes.raise_torch_to_operators:RaiseTorchToOperators",
    "convert-linear-to-mpgemm": "nybble.passes.convert_linear_to_mpgemm:ConvertLinearToMPGemm",
    "restrict-attention": "nybble.passes.restrict_attention:RestrictAttention",
    "retain-tokens": "nybble.passes.retain_tokens:RetainTokens",
    "select-pages": "nybble.passes.select_pages:SelectPages",
    "quantize-cache": "nybble.passes.quantize_cache:QuantizeCache",
    "insert-hadamard": "nybble.passes.insert_hadamard:InsertHadamard",
    "fold-smoothing": "nybble.passes.fold_smoothing:FoldSmoothing",
    "select-dataflow": "nybble.passes.select_dataflow:SelectDataflow",
    "precompute-tables": "nybble.passes.precompute_tables:PrecomputeTables",
    "symmetrize-tables": "nybble.passes.symmetrize_tables:SymmetrizeTables",
    "assign-layout": "nybble.passes.assign_layout:AssignLayout",
    "pad-tokens": "nybble.passes.pad_tokens:PadTokens",
    "fuse-linalg": "nybble.passes.fuse_linalg:FuseLinalg",
    "fuse-kernels": "nybble.passes.fuse_kernels:FuseKernels",
    "chain-kernels": "nybble.passes.chain_kernels:ChainKernels",
    "specialize-tokens": "nybble.passes.specialize_tokens:SpecializeTokens",
    "schedule-kernels": "nybble.passes.schedule_kernels:ScheduleKernels",
    "tile-kernels": "nybble.passes.tile_kernels:TileKernels",
    "convert-spgemm-to-program": ("nybble.passes.convert_spgemm_to_program:ConvertSpGEMMToProgram"),
    "lower-kernels-to-cpu": "nybble.backends.cpu.lower_kernels_to_cpu:LowerKernelsToCpu",
    "lower-kernels-to-fpga": ("nybble.backends.fpga.lower_kernels_to_fpga:LowerKernelsToFpga"),
}


def _is_pass(found: object) -> TypeGuard[type[ModulePass]]:
    return isinstance(found, type) and issubclass(found, ModulePass)


REGISTRY: Registry[type[ModulePass]] = Registry("pass", PASSES, _is_pass)


def load_pass(name: str) -> type[ModulePass]:
    """The pass class registered as `name`; raises UnknownNameError for a name without a row."""
    return REGISTRY.load(name)
