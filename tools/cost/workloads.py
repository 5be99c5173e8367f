"""The workloads that a collection measures: kernels out of the compiler's own stages, at random."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

from nybble.backends.cpu.dataflows import DATAFLOWS
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.matmul.work import Work
from nybble.costmodel.canonical import canonical
from nybble.costmodel.features.table import Call
from nybble.dialects.lowbit import formats
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.frontend.compile_model import DECODE_MODES, CompileOptions
from nybble.tools.cost.graphs import KINDS, PRODUCT_KINDS, kernels_of
from nybble.tools.cost.subject import Subject
from nybble.tools.mlir_file import FIRST, advance
from nybble.tools.run_file import SCHEDULED

FORMATS = ("q4_0", "q4_1", "q8_0", "w4g128", "w2g128", "tq2_0", "mxfp4")
COLUMNS = (256, 384, 512, 576, 768, 1024, 1152, 1536, 2048, 2304, 3072, 4096)
ROWS = (192, 256, 320, 512, 576, 768, 1024, 1536)
TOKENS = (2, 4, 8, 16, 24, 32, 64, 96, 128)
CAPACITY = 128
DEEP = 6
MOST_WEIGHTS = 1 << 20
MOST_PRODUCTS = 1 << 26
"""Rows times columns times tokens: a call takes a few milliseconds."""


@dataclass(frozen=True)
class Load:
    """A subject, and the calls of it that are measured. candidates: at most so many."""

    family: str
    subject: Subject
    calls: tuple[Call, ...]
    candidates: int


@dataclass(frozen=True)
class ProductBase:
    """A product that is measured in every dataflow that computes it; all share `candidates`.

    kind: what it is fused with; see `graphs`.
    """

    format: str
    rows: int
    cols: int
    mode: str
    tokens: tuple[int, ...]
    shares: tuple[int, ...]
    isa: Isa
    candidates: int
    kind: str = "product"

    @cached_property
    def text(self) -> str:
        """The operators."""
        return KINDS[self.kind].format(m=self.rows, k=self.cols, spec=self.format)

    def loads(self) -> Iterator[Load]:
        """One token and many, by each dataflow."""
        for tokens in (1, CAPACITY):
            names = self._dataflows(tokens)
            for name in names:
                subject = Subject(self._kernel(name, tokens), tokens, self.isa)
                counts = (1,) if tokens == 1 else self.tokens
                calls = tuple(Call(n, shares) for n in counts for shares in self.shares)
                yield Load(name, subject, calls, max(2, self.candidates // len(names)))

    def _dataflows(self, tokens: int) -> list[str]:
        mode = DECODE_MODES[self.mode]
        form = formats.get(self.format)
        work = Work(form, self.rows, self.cols, tokens, mode, self.isa)
        return [name for name, row in DATAFLOWS.items() if row.verdict(work).refusal is None]

    def _kernel(self, dataflow: str, tokens: int) -> str:
        module = parse_module(make_context(), self.text, "<workload>")
        options = CompileOptions(
            self.mode, chunk=CAPACITY, threads=1, isa=self.isa.name, dataflow=dataflow
        )
        advance(module, FIRST, SCHEDULED, options)
        found = kernels_of(module, tokens)
        (kernel,) = [op for op in found if op.kernel_name.data.startswith("product")]
        return canonical(kernel)


def products(
    seed: int, isa: Isa, candidates: int, kinds: Sequence[str] = ("product",)
) -> Iterator[ProductBase]:
    """Products without end: formats in turn, sizes at random.

    Every DEEP-th has so many candidates, to tell how well one is chosen; the others have a sixth:
    a model learns more from further shapes than from further candidates.
    """
    source = random.Random(seed)
    for number in count():
        name = FORMATS[number % len(FORMATS)]
        block = formats.get(name).block
        cols = source.choice([one for one in COLUMNS if one % block == 0])
        rows = source.choice([one for one in ROWS if one * cols <= MOST_WEIGHTS])
        most = max(4, MOST_PRODUCTS // (rows * cols))
        able = [n for n in TOKENS if n <= most]
        tokens = tuple(sorted(source.sample(able, min(5, len(able)))))
        mode = source.choice(("i8", "i8-only"))
        share = source.choice([s for s in (2, 3, 4) if rows // 64 >= s])
        some = candidates if number % DEEP == number // DEEP % DEEP else candidates // DEEP
        kind = kinds[number // len(FORMATS) % len(kinds)]
        yield ProductBase(name, rows, cols, mode, tokens, (1, share), isa, some, kind)


def product_loads(seed: int, isa: Isa, candidates: int) -> Iterator[Load]:
    """The subjects of `products`, one after the other."""
    for base in products(seed, isa, candidates):
        yield from base.loads()


def fused_loads(seed: int, isa: Isa, candidates: int) -> Iterator[Load]:
    """Products that are one kernel with a residual sum, a gate or another product."""
    for base in products(seed, isa, candidates, [*PRODUCT_KINDS]):
        yield from base.loads()
