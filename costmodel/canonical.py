"""A kernel alone in canonical form: what a measurement is of, and what features are read from.

Before:

```mlir
func.func @f(%x: tensor<?x64xf32>, %g: tensor<64xf32>) -> tensor<?x64xf32> {
  %r = fused.kernel "norm"(%x, %g) : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
      schedule #schedule.kernel<"cpu", "vector", {tokens = 8 : i64}, "no matrix product"> {
  ^bb0(%0: tensor<?x64xf32>, %1: tensor<64xf32>):
    ..
  }
  func.return %r : tensor<?x64xf32>
}
```

After: a function `@kernel` of the kernel's inputs that returns its outputs, with nothing but the
kernel in it. There is no schedule, no reason and no location, and names are numbers.
"""

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, Operation, Region

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context

NAME = "kernel"


def canonical(kernel: KernelOp) -> str:
    """The text of a kernel alone."""
    module = alone(kernel)
    for op in module.walk():
        op.properties.pop("because", None)
        for value in (*op.results, *(arg for region in op.regions for arg in _arguments(region))):
            value.name_hint = None
    return f"{module!s}\n"


def _arguments(region: Region) -> list[object]:
    return [argument for block in region.blocks for argument in block.args]


def alone(kernel: KernelOp) -> ModuleOp:
    """A module with a copy of a kernel in a function of its inputs."""
    block = Block(arg_types=[value.type for value in kernel.inputs])
    copy = kernel.clone(dict(zip(kernel.inputs, block.args, strict=False)))
    copy.schedule = None
    block.add_ops([copy, func.ReturnOp(*copy.outputs)])
    types = ([value.type for value in kernel.inputs], [value.type for value in kernel.outputs])
    return ModuleOp([func.FuncOp(NAME, types, Region(block))])


def kernel_in(module: Operation) -> KernelOp:
    """The one kernel of a module; raises NybbleError for none or many."""
    found = [op for op in module.walk() if isinstance(op, KernelOp)]
    if len(found) != 1:
        raise NybbleError(f"a workload of {len(found)} kernels", accepted="one kernel")
    return found[0]


def parse(text: str) -> KernelOp:
    """The kernel of a canonical text."""
    return kernel_in(parse_module(make_context(), text, "<workload>"))


__all__ = ["NAME", "StringAttr", "alone", "canonical", "kernel_in", "parse"]
