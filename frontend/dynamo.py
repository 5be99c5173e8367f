"""The backend "nybble" of torch.compile: each graph is compiled for the shapes it is called with.

Parameters and buffers of modules are packed when a graph is first called, and again if they have
changed since. A graph that cannot be compiled raises NybbleError: nothing is handed back to
PyTorch in silence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

import torch
from torch import Tensor, fx, nn

from nybble.dialects.errors import NybbleError
from nybble.frontend.api import compile
from nybble.frontend.compiled_module import CompiledModule
from nybble.frontend.pytorch import operators
from nybble.frontend.pytorch.exact_linear import FORMAT

MAX_SHAPES = 64
"""Compilations that one graph keeps: each holds its weights."""
LINEARS: tuple[object, ...] = (torch.nn.functional.linear, torch._C._nn.linear)  # pyright: ignore
STATIC = "_dynamo_static_input_type"
"""Where torch marks inputs of a graph that are parameters or buffers of modules."""


def backend(
    graph: fx.GraphModule,
    example_inputs: Sequence[object],
    *,
    options: Mapping[str, object] | None = None,
) -> Callable[..., tuple[object, ...]]:
    """What torch.compile calls with a graph; `options` are those of `nybble.compile`.

    The graph is compiled when it is called first, and again for inputs of other shapes.
    Raises NybbleError for unknown options.
    """
    return GraphFunction(graph, BackendOptions.of(options or {}))


@dataclass(frozen=True)
class BackendOptions:
    """Those options of `nybble.compile` that torch.compile may pass on."""

    activations: str = "i8"
    threads: int | None = None
    isa: str | None = None

    @staticmethod
    def of(given: Mapping[str, object]) -> "BackendOptions":
        """The options of a mapping; raises NybbleError for an unknown name or a wrong type."""
        known = [field.name for field in fields(BackendOptions)]
        for name in given:
            if name not in known:
                raise NybbleError(
                    f"unknown option '{name}' of backend nybble", accepted=", ".join(known)
                )
        activations, threads = given.get("activations", "i8"), given.get("threads")
        isa = given.get("isa")
        if not isinstance(activations, str) or not isinstance(isa, str | None):
            raise NybbleError(f"options {dict(given)}", accepted="names of a mode and of a level")
        if not isinstance(threads, int | None):
            raise NybbleError(f"{threads!r} threads", accepted="a number")
        return BackendOptions(activations, threads, isa)


@dataclass(frozen=True)
class Entry:
    """A compilation, and the place and version of each tensor whose values it holds."""

    compiled: CompiledModule
    held: tuple[tuple[int, int], ...]


@dataclass
class GraphFunction:
    """A graph of torch.compile as a function of the graph's inputs."""

    graph: fx.GraphModule
    options: BackendOptions
    entries: dict[object, Entry] = field(default_factory=dict[object, Entry])

    def __post_init__(self) -> None:
        self._holders = [node for node in self.graph.graph.nodes if node.op == "placeholder"]

    def __call__(self, *inputs: object) -> tuple[object, ...]:
        """The graph's results; parameters, buffers and numbers are among the inputs."""
        check_gradients(inputs)
        fixed = {
            node: value
            for node, value in zip(self._holders, inputs, strict=True)
            if is_fixed(node, value)
        }
        free = [
            value
            for node, value in zip(self._holders, inputs, strict=True)
            if node not in fixed and isinstance(value, Tensor)
        ]
        found = self._entry(inputs, fixed, free).compiled(*free)
        return found if isinstance(found, tuple) else (found,)

    def _entry(
        self, inputs: Sequence[object], fixed: Mapping[fx.Node, object], free: Sequence[Tensor]
    ) -> Entry:
        """The compilation for inputs of these shapes and these weights."""
        key = tuple(_kind(value) for value in inputs)
        tensors = [value for value in fixed.values() if isinstance(value, Tensor)]
        held = tuple((value.data_ptr(), value._version) for value in tensors)
        entry = self.entries.get(key)
        if entry is not None and entry.held == held:
            return entry
        if entry is None and len(self.entries) == MAX_SHAPES:
            raise NybbleError(
                f"a graph called with more than {MAX_SHAPES} shapes", accepted="inputs padded alike"
            )
        examples = tuple(value.detach() for value in free)
        made = compile(bound(self.graph, fixed), examples, **asdict(self.options))
        self.entries[key] = Entry(made, held)
        return self.entries[key]


def _kind(value: object) -> object:
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value


def check_gradients(inputs: Sequence[object]) -> None:
    """Raise NybbleError if PyTorch would record gradients."""
    wanted = any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
    if wanted and torch.is_grad_enabled():
        raise NybbleError(
            "backend nybble computes no gradients, and an input or parameter requires one",
            accepted="a call under torch.no_grad() or torch.inference_mode()",
        )


def is_fixed(node: fx.Node, value: object) -> bool:
    """Whether an input is a parameter, a buffer or a number, and so is compiled in."""
    return not isinstance(value, Tensor) or STATIC in node.meta.get("tensor_dict", {})


def bound(graph: fx.GraphModule, fixed: Mapping[fx.Node, object]) -> nn.Module:
    """A module of a graph's free inputs: fixed tensors are buffers, fixed numbers constants."""
    root = nn.Module()
    for name, child in graph.named_children():
        root.add_module(name, child)
    for name, buffer in graph.named_buffers(recurse=False):
        root.register_buffer(name, buffer)
    copy = fx.Graph()
    values: dict[fx.Node, object] = {}
    for index, (node, value) in enumerate(fixed.items()):
        if isinstance(value, Tensor):
            root.register_buffer(f"fixed{index}", value.detach())
            values[node] = copy.get_attr(f"fixed{index}")
        else:
            values[node] = value
    copy.output(copy.graph_copy(graph.graph, values))  # pyright: ignore[reportArgumentType]
    for node in list(copy.nodes):
        if node.target in LINEARS:
            use_products(root, node)
    return fx.GraphModule(root, copy)


def use_products(root: nn.Module, node: fx.Node) -> None:
    """rewrite: `linear(x [.., k], W f32 [n, k], b) -> nybble.linear(x, bytes of W, b)`"""
    x, weight, bias = (*node.args, *node.kwargs.values(), None)[:3]
    example = x.meta.get("example_value") if isinstance(x, fx.Node) else None
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return
    values = root.get_buffer(str(weight.target))
    if values.dtype != torch.float32 or not isinstance(example, Tensor) or example.dim() < 2:
        return
    name = f"{weight.target}_bytes"
    root.register_buffer(name, values.contiguous().view(torch.uint8))
    rows, columns = values.shape
    with node.graph.inserting_before(node):
        stored = node.graph.get_attr(name)
        made = node.graph.call_function(
            operators.linear._opoverload,  # pyright: ignore[reportPrivateUsage]
            (x, stored, bias, FORMAT, rows, columns),
        )
    node.replace_all_uses_with(made)
    node.graph.erase_node(node)
