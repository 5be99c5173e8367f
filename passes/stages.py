"""The ordered stages of compilation: which passes lead to each, and what IR may exist after it.

`nybble-opt`, the driver and the Python API share the one table STAGES. A form is checked after
its stage, so that a lowering that missed something is reported there and not by a later pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnregisteredOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Dialect, Operation

from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.locations import location_of
from nybble.passes.pipeline import Observer, build_pipeline, run_passes

Rule = Callable[[Operation], str | None]
"""Looks at one operation; gives what is wrong with it in this form, or None."""


class FormError(NybbleError):
    """An operation that may not exist in the IR of a stage."""


class StageOrderError(NybbleError):
    """A range of stages that runs backwards."""


@dataclass(frozen=True)
class Form:
    """The shape that IR has after a stage.

    dialects: every operation of these is legal; operations: so are these few of other dialects.
    rules: what else must hold, asked of every operation in turn.
    """

    dialects: frozenset[str]
    operations: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()

    def check(self, module: ModuleOp, stage: str) -> None:
        """Raise FormError at the first operation of `module` that breaks this form."""
        for operation in module.walk():
            fault = self.fault(operation)
            if fault is not None:
                raise FormError(
                    f"{fault} in stage '{stage}'",
                    location=location_of(operation),
                    accepted=self.describe(),
                )

    def fault(self, operation: Operation) -> str | None:
        """What is wrong with one operation, or None."""
        name = operation_name(operation)
        if name not in self.operations and Dialect.split_name(name)[0] not in self.dialects:
            return f"operation '{name}' may not exist"
        return next((said for rule in self.rules if (said := rule(operation))), None)

    def describe(self) -> str:
        """What is legal, for a message."""
        return ", ".join([*sorted(f"{d}.*" for d in self.dialects), *sorted(self.operations)])


@dataclass(frozen=True)
class Stage:
    """One row: `passes` (a pipeline's spelling) take IR of the stage before to this one's form."""

    name: str
    passes: str
    form: Form


def _inside_a_kernel(operation: Operation) -> str | None:
    holder = operation.parent_op()
    loose = isinstance(holder, FuncOp) and not isinstance(operation, KernelOp | ReturnOp)
    return (
        f"operation '{operation_name(operation)}' may not be outside of a kernel" if loose else None
    )


def _is_scheduled(operation: Operation) -> str | None:
    missing = isinstance(operation, KernelOp) and operation.schedule is None
    return "a kernel may not be without a schedule" if missing else None


_OPERATORS = frozenset({"builtin", "func", "mpgemm", "sparse_attn", "fused", "lowbit", "spgemm"})
_UPSTREAM = frozenset({"builtin", "func", "scf", "memref", "vector", "arith", "math", "llvm"})
_KERNELS = frozenset({"mpgemm", "sparse_attn", "fused", "lowbit", "builtin", "func"})
_TENSOR_SUM = frozenset({"arith.addf"})

STAGES: tuple[Stage, ...] = (
    Stage("import", "", Form(frozenset({"builtin", "func", "torch"}))),
    Stage("operators", "raise-torch-to-operators", Form(_OPERATORS, _TENSOR_SUM)),
    Stage(
        "fused",
        "specialize-tokens,select-dataflow,precompute-tables,symmetrize-tables,assign-layout,"
        "fuse-kernels",
        Form(_KERNELS, _TENSOR_SUM, (_inside_a_kernel,)),
    ),
    Stage(
        "scheduled",
        "schedule-kernels",
        Form(_KERNELS, _TENSOR_SUM, (_inside_a_kernel, _is_scheduled)),
    ),
    Stage("lowered", "lower-kernels-to-cpu", Form(_UPSTREAM)),
)


def operation_name(operation: Operation) -> str:
    """The name as written, also where the operation's dialect is not registered."""
    if isinstance(operation, UnregisteredOp):
        return operation.op_name.data
    return operation.name


def find_stage(name: str, stages: Sequence[Stage] = STAGES) -> Stage:
    """The stage called `name`; raises UnknownNameError."""
    for stage in stages:
        if stage.name == name:
            return stage
    names = ", ".join(stage.name for stage in stages) or "none, no stage is defined"
    raise UnknownNameError(f"unknown stage '{name}'", accepted=names)


def stages_between(
    start: str | None, stop: str, stages: Sequence[Stage] = STAGES
) -> tuple[Stage, ...]:
    """The stages after `start` (None: from the very first) up to and with `stop`, in order.

    Raises UnknownNameError for a name without a row and StageOrderError if `stop` is not after
    `start`.
    """
    last = stages.index(find_stage(stop, stages))
    first = 0 if start is None else stages.index(find_stage(start, stages)) + 1
    if first > last:
        later = ", ".join(stage.name for stage in stages[first:]) or f"none, '{start}' is the last"
        raise StageOrderError(f"stage '{stop}' does not come after '{start}'", accepted=later)
    return tuple(stages[first : last + 1])


def run_stage(
    context: Context, module: ModuleOp, stage: Stage, observer: Observer | None = None
) -> None:
    """Run a stage's passes on `module` in place, then check the stage's form."""
    run_passes(context, module, build_pipeline(stage.passes), observer)
    stage.form.check(module, stage.name)
