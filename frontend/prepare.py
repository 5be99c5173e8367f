"""The parameters of a model as its compiled code wants them: prepared by steps, then rounded."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.steps import StepAttr, prepared
from nybble.frontend.checkpoint import TensorEntry
from nybble.frontend.compensation import Hessian
from nybble.frontend.graph import LAYER, ModelGraph, Role
from nybble.frontend.requantize import FLOATS, values_of
from nybble.frontend.rounding import Quantizer, nearest
from nybble.passes.preparation import NAME, argument_attributes, steps_of

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Recipes = Mapping[tuple[str, str], tuple[StepAttr, ...]]
"""(function, argument) -> the steps by which the argument is prepared; nothing without steps."""


def recipes_of(module: ModuleOp) -> Recipes:
    """The steps that passes noted on the arguments of a module at the operators stage."""
    found: dict[tuple[str, str], tuple[StepAttr, ...]] = {}
    for function in [op for op in module.ops if isinstance(op, func.FuncOp)]:
        for index in range(len(function.body.block.args)):
            name = argument_attributes(function, index).get(NAME)
            steps = steps_of(function, index)
            if isinstance(name, StringAttr) and steps:
                found[function.sym_name.data, name.data] = steps
    return found


@dataclass(frozen=True)
class Preparer:
    """Reads parameters and prepares them.

    tensors: the checkpoint's parameters. vectors: what a calibration found, by name. quantize: how
    matrices are rounded. rounded: storage bytes of the matrices that a calibration has rounded.
    """

    tensors: Mapping[str, TensorEntry]
    vectors: Mapping[str, F32]
    quantize: Quantizer = nearest
    rounded: Mapping[str, U8] = field(default_factory=dict[str, U8])

    def values(self, name: str, steps: tuple[StepAttr, ...], layer: int | None) -> F32:
        """The numbers of a parameter after its steps, not rounded to its format."""
        entry = self.tensors[name]
        values = values_of(entry.original or entry)
        return prepared(steps, values, lambda vector: self._vector(vector, layer))

    def weight(self, name: str, values: F32, hessian: Hessian | None) -> formats.Weight:
        """A matrix of prepared numbers in the parameter's format."""
        return self.quantize(formats.get(self.tensors[name].format), values, hessian)

    def is_rounded_anew(self, name: str, steps: tuple[StepAttr, ...]) -> bool:
        """Whether a matrix shall be rounded, and is not just what the checkpoint has."""
        entry = self.tensors[name]
        changed = entry.original is not None and entry.original.format != entry.format
        return len(entry.shape) == 2 and (changed or bool(steps))

    def raw(self, name: str, steps: tuple[StepAttr, ...], layer: int | None) -> U8:
        """The same, rounded, as storage bytes of the parameter's format [rows, row bytes]."""
        if name in self.rounded:
            return self.rounded[name]
        if not steps:
            return self.tensors[name].raw()
        values = self.values(name, steps, layer)
        found = self.weight(name, values.reshape(-1, values.shape[-1]), None)
        return formats.get(self.tensors[name].format).pack(found)

    def _vector(self, name: str, layer: int | None) -> F32:
        found = name if layer is None else name.replace(LAYER, str(layer))
        if found in self.vectors:
            return self.vectors[found]
        return values_of(self.tensors[found])


def check_rounded(graph: ModelGraph, recipes: Recipes, tensors: Mapping[str, TensorEntry]) -> None:
    """Raise NybbleError for a matrix that a step changes and that no rule gives a format.

    What a checkpoint rounded would be rounded once more without anybody having asked for it.
    """
    for function, layer in [(graph.embed, None), *_layers(graph), (graph.head, None)]:
        for argument in graph.functions[function]:
            if argument.role is not Role.WEIGHT or (function, argument.name) not in recipes:
                continue
            entry = tensors[argument.tensor(layer)]
            if len(entry.shape) == 2 and entry.original is None and entry.format not in FLOATS:
                raise NybbleError(
                    f"tensor '{entry.name}' is changed by --rotate or --smooth, and no rule says "
                    f"what it shall be rounded to instead of '{entry.format}'",
                    accepted="a format for it in --weights",
                )


def _layers(graph: ModelGraph) -> list[tuple[str, int | None]]:
    return [(function, layer) for layer, function in enumerate(graph.layers)]
