"""Workloads other than products: attention, and the kernels that work row by row."""

import random
from collections.abc import Iterator
from itertools import count

from nybble.backends.cpu.isa import Isa
from nybble.costmodel.canonical import canonical, parse
from nybble.costmodel.features.table import Call
from nybble.tools.cost.subject import Subject
from nybble.tools.cost.workloads import CAPACITY, Load

KERNEL = """
func.func @kernel({arguments}) -> {result} {{
  %r = fused.kernel "{name}"({names}) : ({types}) -> {result} {{
  ^bb0({inner}):
{body}
  }}
  func.return %r : {result}
}}
"""
WIDTHS = (256, 384, 576, 768, 1024, 1536, 2048, 3072, 4096)
CONTEXT = 2048
HEADS = ((9, 3, 64), (8, 8, 64), (16, 4, 64), (32, 8, 64), (12, 12, 64), (16, 8, 128), (8, 2, 128),
         (6, 2, 96), (14, 2, 64), (4, 4, 128))  # fmt: skip
"""(heads of queries, of keys, length)."""


def kernel_text(name: str, types: list[str], result: str, body: list[str]) -> str:
    """The canonical text of a kernel whose body reads %a, %b, .. and yields a result."""
    letters = "abcdefgh"[: len(types)]
    module = KERNEL.format(
        name=name,
        result=result,
        types=", ".join(types),
        arguments=", ".join(f"%x{one} : {t}" for one, t in zip(letters, types, strict=True)),
        names=", ".join(f"%x{one}" for one in letters),
        inner=", ".join(f"%{one} : {t}" for one, t in zip(letters, types, strict=True)),
        body="\n".join(f"    {line}" for line in body),
    )
    return canonical(parse(module))


def row_text(name: str, rows: str, width: int, digits: int) -> str:
    """A kernel of rows: "norm", "norm_quantize", "quantize" or "glu"."""
    x, w = f"tensor<{rows}x{width}xf32>", f"tensor<{width}xf32>"
    q = f'!lowbit.tensor<{rows}x{width}, "a{8 * digits}g32">'
    match name:
        case "norm":
            line = f"%y = fused.rms_norm %a, %b eps 1.0e-05 : {x}, {w} -> {x}"
            return kernel_text(name, [x, w], x, [line, f"fused.yield %y : {x}"])
        case "norm_quantize":
            lines = [
                f"%y = fused.rms_norm %a, %b eps 1.0e-05 : {x}, {w} -> {x}",
                f"%q = lowbit.quantize %y : {x} -> {q}",
                f"fused.yield %q : {q}",
            ]
            return kernel_text(name, [x, w], q, lines)
        case "quantize":
            lines = [f"%q = lowbit.quantize %a : {x} -> {q}", f"fused.yield %q : {q}"]
            return kernel_text(name, [x], q, lines)
        case _:
            lines = [f'%y = fused.glu "silu" %a, %b : {x}', f"fused.yield %y : {x}"]
            return kernel_text("glu", [x, x], x, lines)


def attention_text(rows: str, heads: int, kv_heads: int, dim: int) -> str:
    """Causal attention over a cache of f16."""
    q, cache = f"tensor<{rows}x{heads * dim}xf32>", f"tensor<{kv_heads}x{CONTEXT}x{dim}xf16>"
    line = (
        f'%y = sparse_attn.attention %a, %b, %c at %d mask <"causal"> '
        f"scale {dim**-0.5:.6e} : {q}, {cache}, {cache} -> {q}"
    )
    return kernel_text("attention", [q, cache, cache, "index"], q, [line, f"fused.yield %y : {q}"])


def kernels(seed: int, isa: Isa, candidates: int) -> Iterator[Load]:
    """Attention and row kernels in turn, without end, of random sizes."""
    source = random.Random(seed)
    for number in count():
        yield from _attention(source, isa, candidates if number % 4 == 0 else candidates // 6)
        for name in ("norm_quantize", "glu", "quantize", "norm"):
            yield from _rows(name, source, isa)


def _attention(source: random.Random, isa: Isa, candidates: int) -> Iterator[Load]:
    heads = source.choice(HEADS)
    for capacity in (1, CAPACITY):
        counts = (1,) if capacity == 1 else tuple(sorted(source.sample((4, 8, 16, 32, 64), 2)))
        cached = sorted(source.sample((0, 64, 128, 256, 512, 1024), 3 if capacity == 1 else 2))
        calls = tuple(Call(n, 1, c) for n in counts for c in cached if n > 1 or c > 0)
        rows = "1" if capacity == 1 else "?"
        yield Load(
            "attention", Subject(attention_text(rows, *heads), capacity, isa), calls, candidates
        )


def _rows(name: str, source: random.Random, isa: Isa) -> Iterator[Load]:
    width, digits = source.choice(WIDTHS), source.choice((1, 2))
    for capacity in (1, CAPACITY):
        counts = (1,) if capacity == 1 else (8, 32, 128)
        rows = "1" if capacity == 1 else "?"
        subject = Subject(row_text(name, rows, width, digits), capacity, isa)
        yield Load(name, subject, tuple(Call(n) for n in counts), 12)
