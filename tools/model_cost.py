"""What a whole model takes on a target: prompts, answers, weights and caches, by the cost model."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from nybble.costmodel.analytic.attention import token_bytes
from nybble.costmodel.analytic.model import Line, Part, Phase, phase
from nybble.costmodel.analytic.work import CostOptions, value_bytes
from nybble.costmodel.kernels import AnalyticModel
from nybble.costmodel.targets.target import Target
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.sparse_attn.cache_type import cache_shape
from nybble.dialects.sparse_attn.ops import AttentionOp
from nybble.frontend.compile_model import CompileOptions
from nybble.frontend.graph import LAYER
from nybble.passes.fuse_kernels import fuse_block
from nybble.passes.preparation import SOURCE, argument_attributes
from nybble.tools.mlir_file import FIRST, advance, functions_of
from nybble.tools.run_file import SCHEDULED
from nybble.tools.text_units import spelled_bytes, spelled_seconds


@dataclass(frozen=True)
class Model:
    """A model that was imported. module: at the operators stage. layers: the function of each."""

    name: str
    module: ModuleOp
    layers: tuple[str, ...]
    embed: str = "embed"
    head: str = "head"

    def calls(self) -> Mapping[str, int]:
        """Function -> calls in a forward pass, in the order of the first."""
        return Counter((self.embed, *self.layers, self.head))

    def weight_bytes(self, target: Target) -> int:
        """Bytes of all parameters as stored; what several functions read counts once."""
        found: dict[str, int] = {}
        for name, times in self.calls().items():
            function = functions_of(self.module)[name]
            for index, argument in enumerate(function.body.block.args):
                source = argument_attributes(function, index).get(SOURCE)
                if isinstance(source, StringAttr):
                    each = times if LAYER in source.data else 1
                    key = f"{name}:{source.data}" if LAYER in source.data else source.data
                    found[key] = each * value_bytes(argument, target, CostOptions())
        return sum(found.values())

    def cache_bytes(self, target: Target, context: int) -> int:
        """Bytes of keys and values of one text of `context` tokens."""
        total = 0
        for name, times in Counter(self.layers).items():
            for op in functions_of(self.module)[name].walk():
                if isinstance(op, AttentionOp):
                    total += times * _cache_row_bytes(op, target) * context
        return total


def _cache_row_bytes(op: AttentionOp, target: Target) -> int:
    """Bytes of the keys and values of one token."""
    return math.ceil(cache_shape(op.keys)[0] * token_bytes(op.keys.type, target))


@dataclass(frozen=True)
class Serving:
    """How a model is asked. batch: texts at once; context: tokens of each when the next is written;
    prompt: tokens of each that are read first. backend: whether kernels are those of the CPU
    backend, with `options`; else products stay as the model states them, and the target's cost
    model fuses.
    """

    batch: int
    context: int
    prompt: int
    backend: bool
    options: CompileOptions

    def chunks(self) -> list[int]:
        """Tokens of the steps in which a prompt is read."""
        step = min(self.options.chunk, self.prompt) if self.backend else self.prompt
        whole, rest = divmod(self.prompt, step)
        return [step] * whole + [rest] * (rest > 0)


@dataclass(frozen=True)
class ModelCost:
    """A model on a target."""

    model: Model
    target: Target
    serving: Serving

    @cached_property
    def weights(self) -> int:
        """Bytes of all parameters."""
        return self.model.weight_bytes(self.target)

    @cached_property
    def cache(self) -> int:
        """Bytes of keys and values of all texts."""
        return self.serving.batch * self.model.cache_bytes(self.target, self.serving.context)

    @property
    def fits(self) -> bool:
        """Whether weights and caches together fit the target's main memory."""
        return self.weights + self.cache <= self.target.main.size.value

    @cached_property
    def prefill(self) -> Phase:
        """Reading the prompts of all texts and choosing the token after each."""
        asked, serving = self._options(), self.serving
        together = 1 if serving.backend else serving.batch
        repeats = serving.batch // together
        kernels = self._lowered(max(serving.chunks()) * together)
        parts: list[Part] = []
        done = 0
        for tokens in serving.chunks():
            now = replace(asked, tokens=tokens * together, sequences=together, cached=done)
            for name, times in self.model.calls().items():
                if name != self.model.head:
                    parts.append(Part(name, times * repeats, kernels.of(name, tokens), now))
            done += tokens
        last = replace(asked, tokens=done * together)
        parts.append(Part("last_row", repeats, kernels.of("last_row", done), last))
        parts += self._ends(replace(asked, tokens=serving.batch, sequences=serving.batch))
        return phase("prefill", serving.batch * serving.prompt, parts, self.target)

    @cached_property
    def decode(self) -> Phase:
        """One token of each text."""
        batch = self.serving.batch
        cached = self.serving.context - 1
        asked = replace(self._options(), tokens=batch, sequences=batch, cached=cached)
        kernels = self._lowered(batch)
        parts = [
            Part(name, times, kernels.of(name, batch), asked)
            for name, times in self.model.calls().items()
            if name != self.model.head
        ]
        return phase("decode", batch, [*parts, *self._ends(asked)], self.target)

    def _options(self) -> CostOptions:
        return CostOptions(cores=self.serving.options.threads if self.serving.backend else None)

    def _ends(self, asked: CostOptions) -> list[Part]:
        """The logits of one token of each text, and the choice of the next."""
        batch = self.serving.batch
        kernels = self._lowered(batch)
        head = Part(self.model.head, 1, kernels.of(self.model.head, batch), asked)
        return [head, Part("sample", batch, kernels.of("sample", 1), asked)]

    def _lowered(self, tokens: int) -> "Kernels":
        """The kernels for so many tokens at once."""
        module = self.model.module.clone()
        if self.serving.backend:
            advance(module, FIRST, SCHEDULED, replace(self.serving.options, chunk=max(tokens, 2)))
        else:
            model = AnalyticModel(self.target, CostOptions(tokens))
            for function in functions_of(module).values():
                fuse_block(function.body.block, model)
        return Kernels(module)

    def report(self) -> dict[str, object]:
        """The keys of `--json`."""
        serving, main = self.serving, self.target.main
        return {
            "machine": self.target.name,
            "model": self.model.name,
            "batch": serving.batch,
            "context": serving.context,
            "prompt": serving.prompt,
            "weights_bytes": self.weights,
            "kv_bytes": self.cache,
            "memory_bytes": int(main.size.value),
            "fits": self.fits,
            "prefill": _phase_report(self.prefill, self.target),
            "decode": _phase_report(self.decode, self.target),
        }

    def lines(self) -> Iterator[str]:
        """The printed form."""
        serving, main = self.serving, self.target.main
        verdict = "fits" if self.fits else "does NOT fit"
        yield f"{self.model.name} on {self.target.name} ({self.target.title})"
        yield (
            f"weights {spelled_bytes(self.weights)}, keys and values {spelled_bytes(self.cache)} "
            f"({serving.batch} x {serving.context} tokens), {main.name} "
            f"{spelled_bytes(main.size.value)}: {verdict}"
        )
        prompt = f"{serving.batch} x {serving.prompt} tokens"
        yield from _phase_lines(self.prefill, f"prefill of {prompt}", self.target)
        depth = f"{serving.batch} x 1 token after {serving.context - 1}"
        yield from _phase_lines(self.decode, f"decode of {depth}", self.target)


@dataclass(frozen=True)
class Kernels:
    """The kernels of a module, of functions for any number of tokens or one for each case."""

    module: ModuleOp

    def of(self, name: str, tokens: int) -> tuple[Operation, ...]:
        """Those of a function of the model, for one token or several."""
        functions = functions_of(self.module)
        variant = f"{name}.decode" if tokens == 1 else f"{name}.prefill"
        function = functions.get(variant) or functions[name]
        return tuple(op for op in function.body.block.ops if isinstance(op, KernelOp))


def _phase_report(found: Phase, target: Target) -> dict[str, object]:
    return {
        "tokens": found.tokens,
        "seconds": found.seconds,
        "tokens_per_second": found.tokens_per_second,
        "bound": found.bound,
        "bounds": found.bounds,
        "bytes": found.cost.moved(target.main.name),
        "cost": found.cost.as_json(),
        "stages": [_line_report(line, target) for line in found.lines],
    }


def _line_report(line: Line, target: Target) -> dict[str, object]:
    return {
        "part": line.part,
        "kernel": line.kernel,
        "operations": list(line.operations),
        "launches": line.cost.launches,
        "seconds": line.seconds,
        "bound": line.bound,
        "limit": line.limit,
        "bytes": line.cost.moved(target.main.name),
        "terms": dict(line.terms),
        "cost": line.cost.as_json(),
    }


def _phase_lines(found: Phase, title: str, target: Target) -> Iterator[str]:
    shares = ", ".join(f"{bound} {share:.0%}" for bound, share in found.bounds.items())
    yield (
        f"{title}: {spelled_seconds(found.seconds)}, {found.tokens_per_second:,.1f} tokens/s, "
        f"{found.bound} bound ({shares})"
    )
    yield f"  {'part':<10} {'kernel':<21} {'runs':>5} {'time':>10} {'share':>6}  bound"
    for line in found.lines:
        share = line.seconds / found.seconds
        yield (
            f"  {line.part:<10} {line.kernel:<21} {line.cost.launches:>5} "
            f"{spelled_seconds(line.seconds):>10} {share:>6.1%}  {_bound(line)}, "
            f"{spelled_bytes(line.cost.moved(target.main.name))}"
        )


def _bound(line: Line) -> str:
    return line.bound if line.bound == line.limit else f"{line.bound} ({line.limit})"
