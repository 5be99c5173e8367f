"""A module to text of the torch dialect: `torch.export`, then torch-mlir's FX importer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.extras.fx_importer import FxImporter

from nybble.frontend.graph import LAYER, Argument, Role

ir: Any = import_module("torch_mlir.ir")  # a native module without type information


@dataclass(frozen=True)
class Input:
    """A call-time argument of an exported function.

    example: a tensor of its shape, on any device; the size along `tokens` is an example only.
    tokens: the dimension that counts the tokens of a call, if one does.
    """

    argument: Argument
    example: Tensor
    tokens: int | None = None


@dataclass(frozen=True)
class Part:
    """A module to export as the function `name`.

    parameters: prefix of a parameter's name in the module -> that of its name in the checkpoint.
    """

    name: str
    module: nn.Module
    inputs: Sequence[Input]
    parameters: Mapping[str, str]

    def parameter(self, target: str) -> str:
        """The checkpoint's name of the module's parameter `target`."""
        prefix = self._prefix(target)
        return self.parameters[prefix] + target.removeprefix(prefix)

    def _prefix(self, target: str) -> str:
        return next(prefix for prefix in self.parameters if target.startswith(prefix))


class TorchModule:
    """A module of the torch dialect to which exported functions are added."""

    def __init__(self) -> None:
        self._context = ir.Context()
        self._context.allow_unregistered_dialects = True
        torch_dialect.register_dialect(self._context)
        self._importer = FxImporter(context=self._context)

    @property
    def module(self) -> Any:
        """The torch_mlir.ir.Module."""
        return self._importer.module

    def add(self, part: Part, max_tokens: int) -> tuple[Argument, ...]:
        """Export a part whose calls have up to `max_tokens` tokens; see `add_program`."""
        return self.add_program(part, export_part(part, max_tokens))

    def add_program(self, part: Part, program: ExportedProgram) -> tuple[Argument, ...]:
        """Add an exported part; its arguments, inputs first, then parameters.

        Each argument carries its name as the attribute `nybble.name`, and each parameter the
        checkpoint's name as `nybble.weight`.
        """
        _inputs_first(program.graph, len(part.inputs))
        sources = [
            part.parameter(spec.target)
            for spec in program.graph_signature.input_specs
            if spec.target is not None
        ]
        weights = [Argument(_identifier(source), Role.WEIGHT, source) for source in sources]
        arguments = (*(given.argument for given in part.inputs), *weights)
        function = self._importer.import_stateless_graph(program.graph, func_name=part.name)
        with self._context:
            function.attributes["arg_attrs"] = ir.ArrayAttr.get(
                [ir.DictAttr.get(_attributes(argument)) for argument in arguments]
            )
        return arguments

    def text(self) -> str:
        """The module in generic form."""
        return self._importer.module.operation.get_asm(print_generic_op_form=True)


def export_part(part: Part, max_tokens: int = 2) -> ExportedProgram:
    """Run torch.export on a part, without decompositions.

    max_tokens: upper bound of the number of tokens in a call, where inputs count them; above 1.
    """
    tokens = Dim("tokens", min=1, max=max_tokens)
    shapes = tuple(None if i.tokens is None else {i.tokens: tokens} for i in part.inputs)
    with torch.no_grad():
        return torch.export.export(
            part.module,
            tuple(i.example for i in part.inputs),
            dynamic_shapes=shapes if any(shapes) else None,
            strict=False,
        )


def _inputs_first(graph: fx.Graph, count: int) -> None:
    """Move the last `count` placeholders, the inputs, before the parameters."""
    holders = [node for node in graph.nodes if node.op == "placeholder"]
    inputs = holders[len(holders) - count :]
    for node in inputs if len(inputs) < len(holders) else ():
        holders[0].prepend(node)


def _identifier(source: str) -> str:
    """A name within a function: "model.layers.{layer}.mlp.up.weight" -> "mlp_up_weight"."""
    return source.rpartition(f"{LAYER}.")[2].removeprefix("model.").replace(".", "_")


def _attributes(argument: Argument) -> dict[str, Any]:
    found = {"nybble.name": ir.StringAttr.get(argument.name)}
    if argument.role is Role.WEIGHT:
        found["nybble.weight"] = ir.StringAttr.get(argument.source)
    return found
