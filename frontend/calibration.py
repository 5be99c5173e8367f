"""Calibration: what the activations of a model are on a text, and what suits them.

The model runs in f64 on the numpy references of its operators, a layer at a time, and a layer's
activations are forgotten when it is done.

Smoothing is SmoothQuant+ (arXiv:2312.03788): a channel of an activation is divided by
`s = max|x|**alpha / max|w|**(1 - alpha)`, with the alpha of least squared error of the products
with rounded weights, or not at all.

Rounding with compensation (`frontend.compensation`) happens as the model runs: a product's weight
is rounded for the inputs that the weights before it, rounded already, give it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation
from xdsl.traits import SymbolTable

from nybble.dialects.interpreter import Interpreter, Values
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.sparse_attn.cache_type import CacheType
from nybble.frontend.compensation import Hessian
from nybble.frontend.graph import LAYER, ModelGraph, Role
from nybble.frontend.prepare import Preparer, Recipes, recipes_of
from nybble.passes.fold_smoothing import Site, sites
from nybble.passes.preparation import parameter_of

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
RESULTS = 3
"""Of a layer: hidden states, keys, values; others are states."""
TOKENS = 512
"""Tokens that smoothing looks at."""
MANY_TOKENS = 1024
"""Tokens that rounding with compensation looks at."""
SAMPLE = 128
"""Tokens that an error is measured on."""
ALPHAS = (0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85)
SMALLEST = 1e-5
EXACT = "f32"


class Tap(Interpreter):
    """An interpreter that keeps the operands of the products that it runs last.

    inputs: product -> its activation f32 [n, k]; weights: product -> its weight f32 [r, k].
    """

    def __init__(self, module: ModuleOp) -> None:
        super().__init__(module)
        self.inputs: dict[Operation, F32] = {}
        self.weights: dict[Operation, F32] = {}

    def _run(self, op: Operation, operands: Sequence[Any]) -> Values:
        if isinstance(op, MatmulOp):
            self.inputs[op] = operands[0]
            self.weights[op] = operands[1].dequantize()
        return super()._run(op, operands)


class Rounder(Interpreter):
    """An interpreter that rounds the weights of the products of one layer as it comes to them.

    rounded: name of the parameter -> its storage bytes.
    """

    def __init__(self, module: ModuleOp, preparer: Preparer, layer: int) -> None:
        super().__init__(module)
        self.preparer = preparer
        self.layer = layer
        self.rounded: dict[str, U8] = {}
        self._known: tuple[F32, Hessian] | None = None

    def _run(self, op: Operation, operands: Sequence[Any]) -> Values:
        if isinstance(op, MatmulOp):
            activation, weight, *bias = operands
            operands = [activation, self._weight(op, activation, weight), *bias]
        return super()._run(op, operands)

    def _weight(self, op: MatmulOp, activation: F32, weight: formats.Weight) -> formats.Weight:
        name, steps = parameter_of(op.weight)
        name = name.replace(LAYER, str(self.layer))
        if not self.preparer.is_rounded_anew(name, steps):
            return weight
        hessian = self._hessian(activation)
        found = self.preparer.weight(name, weight.dequantize(), hessian)
        self.rounded[name] = formats.get(found.spec).pack(found)
        return found

    def _hessian(self, activation: F32) -> Hessian:
        """Of an activation, which products that follow each other often share."""
        if self._known is None or self._known[0] is not activation:
            self._known = activation, Hessian.of(activation)
        return self._known[1]


Runs = TypeVar("Runs", bound=Interpreter)


@dataclass(frozen=True)
class Calibration:
    """A model at the operators stage, whose weights are read as they are used, and not rounded.

    preparer: where parameters come from. progress: told what is being done.
    """

    graph: ModelGraph
    module: ModuleOp
    preparer: Preparer
    progress: Callable[[str], None]
    recipes: Recipes = field(init=False)
    shared: dict[str, Any] = field(init=False, default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipes", recipes_of(self.module))

    def smoothing(self, ids: Sequence[int]) -> dict[str, F32]:
        """The vectors that pass `fold-smoothing` names in the layers; ids: a text's tokens."""
        found: dict[str, F32] = {}
        for layer, tap in enumerate(self._layers(ids[:TOKENS], lambda _layer: Tap(self.module))):
            function = SymbolTable.lookup_symbol(self.module, self.graph.layers[layer])
            assert isinstance(function, func.FuncOp)
            for site in sites(function):
                for vector, values in _vectors(site, tap).items():
                    found[vector.replace(LAYER, str(layer))] = values
        return found

    def rounded(self, ids: Sequence[int]) -> dict[str, U8]:
        """Storage bytes of the layers' matrices that are rounded anew; ids: a text's tokens."""

        def start(layer: int) -> Rounder:
            return Rounder(self.module, self.preparer, layer)

        found: dict[str, U8] = {}
        for rounder in self._layers(ids[:MANY_TOKENS], start):
            found |= rounder.rounded
        return found

    def _layers(self, ids: Sequence[int], start: Callable[[int], Runs]) -> Iterator[Runs]:
        """Run layer after layer, each by an interpreter that `start` makes, and give that."""
        graph = self.graph
        tokens = np.array(ids[: graph.dimensions.context], np.int32)
        embed = self._arguments(graph.embed, None, tokens)
        hidden = Interpreter(self.module).call(graph.embed, *embed)[0]
        for layer, name in enumerate(graph.layers):
            self.progress(f"calibrating layer {layer + 1} of {len(graph.layers)}")
            interpreter = start(layer)
            results = interpreter.call(name, *self._arguments(name, layer, hidden))
            hidden = results[0]
            self._share(name, layer, results[RESULTS:])
            yield interpreter

    def _share(self, function: str, layer: int, states: Sequence[Any]) -> None:
        """Keep the states that a layer gives back and that layers after it look at."""
        arguments = [one for one in self.graph.functions[function] if one.role is Role.STATE]
        for argument, state in zip(arguments, states, strict=False):
            if argument.shared > 1:
                self.shared[argument.state(layer)] = state

    def _arguments(self, function: str, layer: int | None, source: Any) -> list[Any]:
        return [
            self._argument(function, index, layer, source)
            for index in range(len(self.graph.functions[function]))
        ]

    def _argument(self, function: str, index: int, layer: int | None, source: Any) -> Any:
        argument = self.graph.functions[function][index]
        match argument.role:
            case Role.INPUT:
                return source
            case Role.POSITION:
                return 0
            case Role.CONSTANT:
                return self.graph.constants[argument.source]
            case Role.STATE if argument.state(layer or 0) in self.shared:
                return self.shared[argument.state(layer or 0)]
            case Role.KEYS | Role.VALUES | Role.STATE:
                return np.zeros(self._shape(function, index), np.float32)
            case Role.WEIGHT:
                steps = self.recipes.get((function, argument.name), ())
                values = self.preparer.values(argument.tensor(layer), steps, layer)
                return values if values.ndim == 1 else formats.get(EXACT).quantize(values)

    def _shape(self, function: str, index: int) -> tuple[int, ...]:
        """Of a cache that is an argument."""
        found = SymbolTable.lookup_symbol(self.module, function)
        assert isinstance(found, func.FuncOp)
        type_ = found.body.block.args[index].type
        assert isinstance(type_, TensorType | CacheType)
        return type_.get_shape()


def _vectors(site: Site, tap: Tap) -> Mapping[str, F32]:
    """The vectors of one site: of its products' columns, and of the producer."""
    kept, used = site.heads
    activation = tap.inputs[site.products[0]]
    targets = [(tap.weights[one], _format_of(one)) for one in site.products]
    factors = best_factors(activation, targets, site.heads)
    if kept == used:
        return {site.name: factors, site.producer_name: factors}
    size = factors.size // used
    of_values = factors.reshape(kept, used // kept, size)[:, 0].reshape(-1)
    return {site.name: factors, site.producer_name: np.ascontiguousarray(of_values)}


def _format_of(product: MatmulOp) -> formats.Format:
    assert isinstance(product.weight.type, LowBitTensorType)
    return product.weight.type.number_format


def best_factors(
    activation: F32, weights: Sequence[tuple[F32, formats.Format]], heads: tuple[int, int] = (1, 1)
) -> F32:
    """The factors f32 [k] of the columns of matrices that read one activation; ones if none help.

    activation: f32 [n, k]; weights: matrices f32 [r, k] and the formats they are rounded to.
    heads: of values and of queries; the factors of query heads that share values are equal.
    """
    largest_x = _shared(np.abs(activation).max(axis=0), heads)
    largest_w = np.max([np.abs(weight).max(axis=0) for weight, _ in weights], axis=0)
    largest_w = _shared(largest_w, heads)
    sample = activation[:: max(1, len(activation) // SAMPLE)]
    candidates = [np.ones_like(largest_x)]
    candidates += [_factors(largest_x, largest_w, alpha) for alpha in ALPHAS]
    errors = [
        sum(_error(sample, weight, form, factors) for weight, form in weights)
        for factors in candidates
    ]
    return candidates[int(np.argmin(errors))]


def _shared(values: F32, heads: tuple[int, int]) -> F32:
    """The largest of the channels that one channel of values serves, for each of them."""
    kept, used = heads
    grouped = values.reshape(kept, used // kept, values.size // used)
    return np.ascontiguousarray(
        np.broadcast_to(grouped.max(axis=1, keepdims=True), grouped.shape)
    ).reshape(-1)


def _factors(largest_x: F32, largest_w: F32, alpha: float) -> F32:
    factors = np.maximum(largest_x, SMALLEST) ** alpha / np.maximum(largest_w, SMALLEST) ** (
        1 - alpha
    )
    middle = np.sqrt(factors.max() * factors.min())
    return np.clip(factors / middle, 1e-3, 1e3).astype(np.float32)


def _error(sample: F32, weight: F32, form: formats.Format, factors: F32) -> float:
    """The squared error of products of a weight that was rounded with its columns scaled."""
    rounded = form.quantize(weight * factors).dequantize() / factors
    exact = np.square(sample @ weight.T, dtype=np.float64).sum(axis=1)
    wrong = np.square(sample @ (rounded - weight).T, dtype=np.float64).sum(axis=1)
    return float(np.sum(wrong / np.maximum(exact, SMALLEST)))
