"""The Python entry points for PyTorch modules; torch is imported when one is called."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp

from nybble.dialects.registry import make_context
from nybble.passes.convert_linear_to_mpgemm import ConvertLinearToMPGemm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nybble.frontend.pytorch.import_module import ImportedModule


@dataclass(frozen=True)
class Lowered:
    """A PyTorch module at the `operators` stage.

    module: its function `main` over mpgemm products, linalg and tensor ops.
    source: what to bind the function's arguments to, in their order.
    """

    module: ModuleOp
    source: "ImportedModule"


def quantize(module: "nn.Module", fmt: str, skip: Collection[str] = ()) -> "nn.Module":
    """Give the Linear layers of a module weights of format `fmt`, in place.

    See `nybble.frontend.pytorch.quantize.quantize`.
    """
    from nybble.frontend.pytorch.quantize import quantize as replace_layers

    return replace_layers(module, fmt, skip)


def lower(module: "nn.Module", example_inputs: Sequence["Tensor"]) -> Lowered:
    """A module in eval mode, for inputs of the examples' shapes, at the `operators` stage.

    Raises NybbleError for a module that cannot be exported or lowered.
    """
    from nybble.frontend.pytorch.import_module import import_module

    source = import_module(module, example_inputs)
    operators = source.module()
    ConvertLinearToMPGemm().apply(make_context(), operators)
    operators.verify()
    return Lowered(operators, source)
