"""Which product a case is about: everything follows from the seed and the number of the case.

Cases take the formats in turn. A few cases in a row of one format share a kernel, and differ in
tokens and data; every so often a case asks for a shape that the format cannot have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nybble.backends.cpu.dataflows import ROWS
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.matmul.work import Work
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Format

DATA = ("normal", "exact", "extreme", "zero_groups", "infinite", "denormal")
EPILOGUES = ("", "", "bias", "residual", "glu", "bias+residual")
MISFIT, REFUSED = "misfit", "refused"
PER_KERNEL = 8
"""Cases that share a kernel."""
MISFIT_EVERY = 8
TOKENS = 20
"""The most tokens of a case; more than two blocks of rows."""
LARGEST_ROWS, LARGEST_COLS = 200, 1024


@dataclass(frozen=True)
class Kernel:
    """What is compiled: a product in a format, by a dataflow, with what is fused to its end.

    many: whether it takes many tokens at once. dataflow: the one to take; "misfit" for a shape that
    the format cannot have, "refused" where no dataflow takes it: both must be an error.
    """

    spec: str
    rows: int
    cols: int
    many: bool
    dataflow: str
    activations: str
    epilogue: str

    @property
    def is_error(self) -> bool:
        """Whether it must be refused before code is generated."""
        return self.dataflow in (MISFIT, REFUSED)


@dataclass(frozen=True)
class Case:
    """A kernel with tokens and a kind of data; `number` is what `--case` takes."""

    number: int
    kernel: Kernel
    tokens: int
    data: str


@dataclass(frozen=True)
class Draw:
    """A family of cases: the seed, the formats (none twice) and the instruction-set level."""

    seed: int
    specs: tuple[str, ...]
    isa: Isa
    dataflow: str = ""

    def case(self, number: int) -> Case:
        """The case of a number >= 0."""
        spec, draw = self.specs[number % len(self.specs)], number // len(self.specs)
        place = self.specs.index(spec)
        if draw % MISFIT_EVERY == MISFIT_EVERY - 1 and formats.get(spec).block > 1:
            kernel = misfit(spec, np.random.default_rng([self.seed, place, draw]))
        else:
            kernel = self.kernel(
                spec, np.random.default_rng([self.seed, place, draw // PER_KERNEL])
            )
        random = np.random.default_rng([self.seed, number])
        tokens = int(random.integers(2, TOKENS + 1)) if kernel.many else 1
        return Case(number, kernel, tokens, str(random.choice(DATA)))

    def kernel(self, spec: str, random: np.random.Generator) -> Kernel:
        """A kernel of a format: a shape and a dataflow that takes it."""
        description = formats.get(spec)
        rows, cols = shape(description, random)
        many, epilogue = random.random() < 0.5, str(random.choice(EPILOGUES))
        flows = [
            (row.name, mode)
            for row in ROWS
            for mode in row.modes
            if self.dataflow in ("", row.name)
            and row.verdict(self.work(description, (rows, cols), many, mode)).refusal is None
        ]
        if not flows:
            return Kernel(spec, rows, cols, many, REFUSED, ROWS[0].modes[0], "")
        dataflow, mode = flows[int(random.integers(len(flows)))]
        return Kernel(spec, rows, cols, many, dataflow, mode, epilogue)

    def work(self, description: Format, size: tuple[int, int], many: bool, mode: str) -> Work:
        """What a dataflow is asked about."""
        return Work(description, *size, TOKENS if many else 1, mode, self.isa)


def shape(description: Format, random: np.random.Generator) -> tuple[int, int]:
    """Rows, often few or odd, and columns that a format can have."""
    tall = description.row_step
    rows = int(random.choice([1, 3, 64, 65, 127, 128, int(random.integers(1, LARGEST_ROWS))]))
    block = description.block
    if block > 1:
        most = max(LARGEST_COLS // block, 1)
        return rows * tall, block * int(random.integers(1, most + 1))
    return rows * tall, int(random.choice([16, 32, 64, 128, 256, int(random.integers(1, 300))]))


def misfit(spec: str, random: np.random.Generator) -> Kernel:
    """A shape whose columns are no multiple of the format's block."""
    description = formats.get(spec)
    blocks, extra = int(random.integers(0, 4)), int(random.integers(1, description.block))
    cols = blocks * description.block + extra
    return Kernel(spec, description.row_step, cols, True, MISFIT, ROWS[0].modes[0], "")


def all_specs(extra: Sequence[str]) -> tuple[str, ...]:
    """The short names, then some of the names that patterns give."""
    return tuple(dict.fromkeys((*formats.names(), *extra)))
