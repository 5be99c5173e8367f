"""What nybble-opt shows of a run on the error stream: the IR after passes, and their times."""

import sys
from dataclasses import dataclass, field
from time import perf_counter
from typing import Self

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from nybble.tools.opt_options import OptOptions


@dataclass
class PassObserver:
    """Prints IR and collects times, as far as the options ask for it."""

    print_all: bool
    print_changed: bool
    timing: bool
    _before: str = ""
    _started: float = 0.0
    _times: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    @classmethod
    def from_options(cls, options: OptOptions) -> Self:
        """The observer that a command line asks for."""
        return cls(
            options.mlir_print_ir_after_all,
            options.mlir_print_ir_after_change,
            options.mlir_timing,
        )

    def before(self, step: ModulePass, module: ModuleOp) -> None:
        """Remember how things stand before a pass."""
        if self.print_changed:
            self._before = str(module)
        self._started = perf_counter()

    def after(self, step: ModulePass, module: ModuleOp) -> None:
        """Print and record what the pass did."""
        self._times.append((step.name, perf_counter() - self._started))
        if not (self.print_all or self.print_changed):
            return
        printed = str(module)
        if self.print_all or printed != self._before:
            sys.stderr.write(f"// -----// IR Dump After {step} //----- //\n{printed}\n\n")

    def finish(self) -> None:
        """Print the times, if they were asked for: seconds, with verification, in order."""
        if not self.timing:
            return
        total = sum(seconds for _, seconds in self._times)
        rows = [f"  {seconds:10.4f} s  {name}" for name, seconds in self._times]
        sys.stderr.write("\n".join(["pass timing:", *rows, f"  {total:10.4f} s  total"]) + "\n")
