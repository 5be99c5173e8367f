"""Decoding of texts with a common beginning, whose keys are read once for all of them, or not.

The part of the prefix is one `partial` of all texts' rows (Hydragen, arXiv:2402.05099). Their own
keys are another, in which a text's heads are heads of their own, joined with the first and divided.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.backends.llvm.workers import close_idle
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.sparse_attn.kv import SIDES, parse
from nybble.tools.bench.attention_runners import F32, Inputs
from nybble.tools.bench.rounds import timed
from nybble.tools.cache_text import cache_text
from nybble.tools.mlir_file import FIRST, advance, find_function
from nybble.tools.random_values import key_caches
from nybble.tools.run_file import SCHEDULED, Compiled, FileRun, compile_function, variant_name

PREFIX = """
func.func @f(%q: {rows}, %k: {keys}, %v: {values}, %p: index) -> ({heads}, {heads}, {rows}) {{
  %m, %s, %a = sparse_attn.partial shared %q, %k, %v at %p mask <"causal"> scale {scale:.9e}
    : {rows}, {keys}, {values} -> {heads}, {heads}, {rows}
  func.return %m, %s, %a : {heads}, {heads}, {rows}
}}
"""
OWN = """
func.func @f(%q: {rows}, %k: {keys}, %v: {values}, %m: {heads}, %s: {heads}, %a: {rows}, %p: index)
    -> {rows} {{
  %m1, %s1, %a1 = sparse_attn.partial %q, %k, %v at %p mask <"causal"> scale {scale:.9e}
    : {rows}, {keys}, {values} -> {heads}, {heads}, {rows}
  %m2, %s2, %a2 = sparse_attn.merge (%m, %s, %a), (%m1, %s1, %a1) : {heads}, {rows}
  %r = sparse_attn.finish %a2 by %s2 : {rows} by {heads}
  func.return %r : {rows}
}}
"""


@dataclass(frozen=True, eq=False)
class Texts:
    """One row of each of some texts.

    q: f32 [texts, heads * d]. prefix: keys and values that all have, f32 [kv_heads, tokens, d]
    each; own: those after it, f32 [texts, kv_heads, tokens, d] each.
    """

    q: F32
    prefix: tuple[F32, F32]
    own: tuple[F32, F32]

    @staticmethod
    def random(texts: int, tokens: tuple[int, int], sizes: tuple[int, int, int]) -> "Texts":
        """Normally distributed numbers. tokens: of the prefix and after it. sizes: heads, heads of
        keys, d."""
        heads, kv_heads, d = sizes
        random = np.random.default_rng(0)
        q = random.standard_normal((texts, heads * d), np.float32)
        prefix = random.standard_normal((2, kv_heads, tokens[0], d), np.float32)
        own = random.standard_normal((2, texts, kv_heads, tokens[1], d), np.float32)
        return Texts(q, (prefix[0], prefix[1]), (own[0], own[1]))

    def alone(self, text: int) -> Inputs:
        """One text with all of its keys and values."""
        k, v = (
            np.concatenate([prefix, own[text]], axis=1)
            for prefix, own in zip(self.prefix, self.own, strict=True)
        )
        return Inputs(self.q[text : text + 1], k, v)


class SharedAttention:
    """Both parts, compiled and ready to run."""

    def __init__(self, texts: Texts, kv: str, threads: int) -> None:
        count, width = texts.q.shape
        kv_heads, _, d = texts.prefix[0].shape
        heads = width // d
        self._shape = texts.q.shape
        self._prefix = _compiled(PREFIX, (count, heads, d), [texts.q], texts.prefix, kv, threads)
        parts = [one.astype(np.float32).reshape(1, -1) for one in self._prefix.results()]
        own = [one.reshape(count * kv_heads, -1, d) for one in texts.own]
        sizes = (1, count * heads, d)
        row = texts.q.reshape(1, -1)
        self._own = _compiled(OWN, sizes, [row, *parts], (own[0], own[1]), kv, threads)

    def seconds(self) -> float:
        """Run both once; the time of the kernels alone."""
        return timed(self._run)

    def _run(self) -> None:
        for one in (self._prefix, self._own):
            one.executor.run(("main",), one.rows, one.position)

    def result(self) -> npt.NDArray[np.float64]:
        """f64 [texts, heads * d]."""
        return self._own.results()[0].reshape(self._shape)

    def close(self) -> None:
        """Ends the threads."""
        self._own.executor.close()
        self._prefix.executor.close()


def _compiled(
    text: str,
    sizes: tuple[int, int, int],
    given: list[Any],
    caches: tuple[F32, F32],
    kv: str,
    threads: int,
) -> Compiled:
    """A part on its arguments, run once. sizes: rows, heads, d. given: the rows, then parts."""
    rows, heads, d = sizes
    keys, values = (cache_text(side, caches[0].shape, kv, rows) for side in SIDES)
    module = parse_module(
        make_context(),
        text.format(
            rows=f"tensor<?x{heads * d}xf32>", heads=f"tensor<?x{heads}xf32>",
            keys=keys, values=values, scale=d**-0.5,
        ),
        "<attention>",
    )  # fmt: skip
    position = caches[0].shape[1] - 1
    run = FileRun("f", rows, position, 0, threads, None, "f32")
    plain = key_caches(find_function(module, "f"))
    advance(module, FIRST, SCHEDULED, run.options())
    held = [parse(kv).rounded(one) for one in caches]
    arguments = [given[0], *held, *given[1:], position]
    name = variant_name(module, "f", rows)
    compiled = compile_function(module, name, arguments, plain, run)
    close_idle()
    compiled.run()
    return compiled
