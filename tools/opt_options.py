"""The options of nybble-opt, one field for each, as its command line spells them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OptOptions:
    """What one run of nybble-opt was asked to do.

    file, output: a path, or `-` for a standard stream.
    time_limit: seconds of processor time for reading each part; None: in proportion to its size.
    """

    file: str
    passes: str
    from_stage: str | None
    to_stage: str | None
    output: str
    split_input_file: bool
    verify_diagnostics: bool
    allow_unregistered_dialect: bool
    mlir_print_op_generic: bool
    mlir_print_debuginfo: bool
    mlir_print_ir_after_all: bool
    mlir_print_ir_after_change: bool
    mlir_timing: bool
    crash_reproducer: str | None
    run_reproducer: bool
    time_limit: float | None
    list_passes: bool
