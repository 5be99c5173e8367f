"""Imports any PyTorch module: its quantized Linear layers as products, all else as linalg."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.export import ExportedProgram
from xdsl.dialects.builtin import ModuleOp

from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.frontend.graph import Argument, Role
from nybble.frontend.pytorch import decompositions
from nybble.frontend.pytorch.export import Input, Part, TorchModule, export_part
from nybble.frontend.pytorch.linalg import lower_to_linalg

ENTRY = "main"


@dataclass(frozen=True)
class ImportedModule:
    """A PyTorch module as text of linalg on tensors, and what to bind its function's arguments to.

    text: generic form; function `main` calls `@nybble.linear.N` for quantized Linear layers.
    arguments: inputs in the order of the call, then weights.
    weights: name of a weight -> its values; bytes of a format are uint8 [rows, bytes per row].
    single: whether a call returns one tensor, and not a tuple of them.
    """

    text: str
    arguments: tuple[Argument, ...]
    weights: Mapping[str, npt.NDArray[np.generic]]
    single: bool

    def module(self) -> ModuleOp:
        """The text parsed and verified; operations that nybble does not know are left in it."""
        context = make_context(allow_unregistered=True)
        return parse_module(context, self.text, f"{ENTRY}.mlir")


def import_module(module: nn.Module, example_inputs: Sequence[object]) -> ImportedModule:
    """Import `module` for inputs of exactly the shapes and dtypes of the examples.

    The module is taken as it is in eval mode. Raises NybbleError for inputs that are not tensors,
    a module that torch cannot export or torch-mlir cannot lower, and one that changes its buffers.
    """
    inputs = [_input(index, example) for index, example in enumerate(example_inputs)]
    part = Part(ENTRY, module, inputs, {"": ""})
    training = module.training
    try:
        program = _export(part)
    finally:
        module.train(training)
    target = TorchModule()
    arguments = target.add_program(part, program)
    lower_to_linalg(target.module)
    weights = _weights(program, arguments)
    return ImportedModule(target.text(), arguments, weights, _is_single(program))


def _input(index: int, example: object) -> Input:
    if not isinstance(example, Tensor):
        kind = type(example).__name__
        raise NybbleError(f"example input {index} is of type {kind}", accepted="torch.Tensor")
    return Input(Argument(f"input{index}", Role.INPUT), example)


def _export(part: Part) -> ExportedProgram:
    part.module.eval()
    try:
        program = _functional(export_part(part))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise NybbleError(f"torch cannot export the module: {error}") from error
    changed = [*program.graph_signature.buffers_to_mutate.values()]
    changed += program.graph_signature.user_inputs_to_mutate.values()
    if changed:
        raise NybbleError(
            f"the module changes {', '.join(changed)} when it runs",
            accepted="a module without side effects",
        )
    return program


def _is_single(program: ExportedProgram) -> bool:
    """Whether the module returns a tensor; NybbleError unless that or a flat tuple or list."""
    spec = program.call_spec.out_spec
    kinds = [spec, *spec.children()] if spec is not None else []
    flat = spec is not None and (spec.is_leaf() or spec.type in (tuple, list))
    if not flat or not all(child.is_leaf() for child in kinds[1:]):
        raise NybbleError(f"the module returns {spec}", accepted="a tensor, or a tuple of tensors")
    return kinds[0].is_leaf()


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The program with in-place operations made functional, and attention decomposed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch uses what it deprecates
        return program.run_decompositions(decompositions.TABLE)


def _weights(
    program: ExportedProgram, arguments: Sequence[Argument]
) -> dict[str, npt.NDArray[np.generic]]:
    values: dict[str, object] = {**program.state_dict, **program.constants}
    found: dict[str, npt.NDArray[np.generic]] = {}
    for argument in arguments:
        value = values.get(argument.source)
        if argument.role is Role.WEIGHT and isinstance(value, Tensor):
            found[argument.source] = value.detach().contiguous().numpy()
    return found
