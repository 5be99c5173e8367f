"""Random attentions against the f64 reference: masks, caches, kinds of softmax, positions, data.

Everything follows from the seed and the number of the case. CASES_A_KERNEL cases in a row share a
kernel and differ in position and data; among the data are logits that overflow a fixed maximum,
first tokens of a text, empty caches, and rows and whole calls that see no key. Kernels take every
mask with every format of a cache and every kind of softmax in turn, so that 3,000 cases have them
all; one in RETAINED_EVERY keeps a number of tokens instead, see `retained`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from nybble.dialects.errors import InternalError, NybbleError
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.sparse_attn.kv import KEYS, VALUES
from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.dialects.sparse_attn.masks import parse
from nybble.dialects.sparse_attn.masks.blocks import selections_of
from nybble.dialects.sparse_attn.ops import SOFTMAX
from nybble.tools.cache_text import cache_text
from nybble.tools.mlir_file import FIRST, advance, find_function
from nybble.tools.random_values import Value, buffers_of, key_caches, stored_keys
from nybble.tools.run_file import SCHEDULED, Compiled, FileRun, compile_function, variant_name
from nybble.tools.verify import retained
from nybble.tools.verify.attention_kernel import CONTEXT, AttentionKernel
from nybble.tools.verify.pool import runner

CASES_A_KERNEL = 6
THREADS = 2
"""That share out the heads and tiles of a call, on whatever machine."""
RETAINED_EVERY = 10
KV = (
    "f32",
    "f16",
    "bf16",
    "kv8",
    "kv4",
    "kv2",
    "kv4(32)",
    "kivi4(16,32)",
    "kivi2(16,64,64)",
    "kv4-i8",
    "kivi2(16,0)-i8",
    "gear2(2,1,16,32)",
    "lowrank(5)",
)
SCALES = (0.0, 1.0, 1.0, 30.0, 1000.0)
"""Of queries: logits of all sizes, up to those that a fixed maximum cannot hold."""
BOUND = 3e-6
"""Error allowed, relative to the largest value, for logits that are about 1; it grows with them."""
WEIGHTS = 5e-3
"""Beside it of codes that are multiplied as integers: a weight may round to the other side."""
ATOMS = (
    "causal", "window(1)", "window(50)", "sink(4)", "streaming(10,70)", "stride(16,3,1)",
    "stride(64,2)", "pages(64,2)", "blocks(16)", "windowkv(32,3,20)",
)  # fmt: skip
COMBINATIONS = tuple(product(ATOMS, KV, SOFTMAX))
EMPTY = -1
"""The position of a row before the text, that has nothing in its cache to see."""
STRIDE = 101
"""From one kernel to the next: a prime, so that a few kernels in a row are unlike each other."""
TEXT = """
func.func @f(%q: tensor<{rows}x{width}xf32>, %k: {keys}, %v: {values}{lists},
             %p: index) -> tensor<{rows}x{width}xf32> {{
  %r = sparse_attn.attention %q, %k, %v at %p mask <"{mask}"> {selected} scale 2.5e-01
    softmax "{softmax}" : tensor<{rows}x{width}xf32>, {keys}, {values}
    -> tensor<{rows}x{width}xf32>
  func.return %r : tensor<{rows}x{width}xf32>
}}
"""


@dataclass(frozen=True)
class Attention(AttentionKernel):
    """Attention over a cache that is there whole."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the cache."""
        return self.kv_heads, CONTEXT, self.d

    def text(self) -> str:
        """A function around it."""
        lists = [
            f"tensor<{self.kv_heads}x1x{one.count or 2}xi32>"
            for one in selections_of(parse(self.mask))
        ]
        names = [f"%l{index}" for index in range(len(lists))]
        pairs = [f", {name}: {type_}" for name, type_ in zip(names, lists, strict=True)]
        return TEXT.format(
            rows=self.rows if self.rows == 1 else "?",
            width=self.heads * self.d,
            keys=cache_text(KEYS, self.shape, self.kv, self.rows),
            values=cache_text(VALUES, self.shape, self.kv, self.rows),
            lists="".join(pairs),
            mask=self.mask,
            selected=f"selected {', '.join(names)} : {', '.join(lists)}" if lists else "",
            softmax=self.softmax,
        )

    def values(self, seed: int, number: int) -> list[Value]:
        """Query, keys, values, lists and position of a case."""
        random = np.random.default_rng([seed, number, 1])
        position = self.position(random, EMPTY)
        kv = parse_kv(self.kv)
        q = random.standard_normal((self.rows, self.heads * self.d), np.float32)
        k, v = random.standard_normal((2, *self.shape), np.float32)
        scale = np.float32(random.choice(SCALES))
        lists = [
            random.integers(-1, CONTEXT // one.size, (self.kv_heads, 1, one.count or 2)).astype(
                np.int32
            )
            for one in selections_of(parse(self.mask))
        ]
        return [q * scale, kv.rounded(k), kv.rounded(v), *lists, position]


@dataclass(frozen=True)
class Outcome:
    """error: the largest, over what is allowed; fault: what is wrong, empty if nothing is.

    blind: whether there is a query that sees no key.
    """

    number: int
    attention: AttentionKernel
    position: int
    error: float
    fault: str
    blind: bool = False

    def report(self) -> dict[str, object]:
        """The case in the words of the command's report."""
        facts = asdict(self.attention)
        return {
            "case": self.number, **facts, "position": self.position, "error": self.error,
            "fault": self.fault,
        }  # fmt: skip


def drawn(seed: int, group: int) -> AttentionKernel:
    """The attention of a group of cases."""
    random = np.random.default_rng([seed, group])
    turn, place = divmod(group, RETAINED_EVERY)
    if place == RETAINED_EVERY - 1:
        return retained.drawn(random, turn)
    number = (group - turn) * STRIDE + seed
    first, kv, softmax = COMBINATIONS[number % len(COMBINATIONS)]
    second, third = (str(one) for one in random.choice(ATOMS, 2))
    mask = str(
        random.choice(
            [first, f"{first}+{second}", f"{first}&({second}+{third})",
             f"heads(0:{first};else:{second}+{third})"]
        )
    )  # fmt: skip
    kv_heads = int(random.choice([1, 2, 3]))
    return Attention(
        mask=str(parse(mask)),
        kv=kv,
        softmax=softmax,
        heads=kv_heads * int(random.choice([1, 2, 3])),
        kv_heads=kv_heads,
        d=int(random.choice([16, 32, 80])),
        rows=int(random.choice([1, 1, 7, 40])),
    )


@dataclass(frozen=True)
class Task:
    """Cases that share a kernel."""

    seed: int
    group: int
    numbers: tuple[int, ...]


def tasks(seed: int, numbers: Sequence[int]) -> list[Task]:
    """The cases, kernel by kernel."""
    groups: dict[int, list[int]] = {}
    for number in numbers:
        groups.setdefault(number // CASES_A_KERNEL, []).append(number)
    return [Task(seed, group, tuple(mine)) for group, mine in groups.items()]


def run_task(task: Task) -> list[Outcome]:
    """Run the cases of a task in this process; all have failed where there is no kernel."""
    kernel = drawn(task.seed, task.group)
    try:
        return [*run_group(task.seed, kernel, task.numbers)]
    except (NybbleError, InternalError) as error:
        fault = f"{type(error).__name__}: {error}"
        return [
            Outcome(one, kernel, position_of(kernel.values(task.seed, one)), np.inf, fault)
            for one in task.numbers
        ]


def run(
    seed: int, numbers: Sequence[int], jobs: int, progress: Callable[[int], None] = lambda _: None
) -> list[Outcome]:
    """The outcome of each case, in order; `progress` is told how many are done."""
    found: list[Outcome] = []
    planned = tasks(seed, numbers)
    with runner(min(jobs, len(planned)), run_task) as execute:
        for outcomes in execute(planned):
            found += outcomes
            progress(len(found))
    return sorted(found, key=lambda one: one.number)


def coverage(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """How many cases had what. combinations: of a mask, a cache and a kind of softmax."""
    kernels = [one.attention for one in outcomes]
    plain = [one for one in kernels if isinstance(one, Attention)]
    among = ATOMS + tuple(str(parse(one)) for one in retained.MASKS)
    met = {
        (mask, kv, softmax)
        for mask, kv, softmax in COMBINATIONS
        if any(mask in one.mask and (kv, softmax) == (one.kv, one.softmax) for one in plain)
    }
    return {
        "combinations": {"drawn": len(met), "of": len(COMBINATIONS)},
        "masks": {mask: sum(mask in one.mask for one in kernels) for mask in among},
        "kv": dict(Counter(one.kv for one in kernels)),
        "softmax": dict(Counter(one.softmax for one in kernels)),
        "empty_caches": sum(one.position == EMPTY for one in outcomes),
        "queries_without_keys": sum(one.blind for one in outcomes),
    }


def run_group(seed: int, attention: AttentionKernel, numbers: Sequence[int]) -> Iterator[Outcome]:
    """Compile an attention and run cases on it."""
    module = parse_module(make_context(), attention.text(), "<verify>")
    inputs = [attention.values(seed, number) for number in numbers]
    run = FileRun("f", attention.rows, CONTEXT - attention.rows, 0, THREADS, None, "f32")
    reference = Interpreter(module.clone())
    keys = key_caches(find_function(module, "f"))
    advance(module, FIRST, SCHEDULED, run.options())
    name = variant_name(module, "f", attention.rows)
    compiled = compile_function(module, name, inputs[0], keys, run)
    with closing(compiled.executor):
        for number, values in zip(numbers, inputs, strict=True):
            wanted = reference.call("f", *values)[0]
            found = run_case(compiled, values)
            yield judged(number, attention, values, wanted.astype(np.float64), found)


def position_of(values: list[Value]) -> int:
    """The last of a case's values."""
    position = values[-1]
    assert isinstance(position, int)
    return position


def run_case(compiled: Compiled, values: list[Value]) -> npt.NDArray[np.float64]:
    """What the machine code gives."""
    compiled.position = position_of(values)
    layout, end = compiled.layout, compiled.position + compiled.rows
    for names, value, type_ in zip(layout.inputs, values, layout.argument_types, strict=True):
        for name, array in zip(names, buffers_of(value, type_, end), strict=False):
            compiled.inputs[name] = stored_keys(array) if name in layout.keys else array
    compiled.run()
    return compiled.results()[0]


def judged(
    number: int,
    attention: AttentionKernel,
    values: list[Value],
    wanted: npt.NDArray[np.float64],
    found: npt.NDArray[np.float64],
) -> Outcome:
    """Hold a result against the reference: logits of size s are known to s * 2^-24 or so."""
    q = np.abs(np.asarray(values[0], np.float64)).max(initial=0.0)
    logits = max(1.0, 0.25 * q * attention.d)
    allowed = BOUND * logits * max(1.0, float(np.abs(np.asarray(values[2])).max()))
    if parse_kv(attention.kv).integers:
        allowed += WEIGHTS * max(1.0, float(np.abs(np.asarray(values[2])).max()))
    error = float(np.abs(found - wanted).max()) / allowed
    blind = not wanted.reshape(-1, attention.d).any(axis=1).all()
    fault = ""
    if not np.isfinite(found).all():
        error, fault = np.inf, "a result is not finite"
    elif error > 1:
        worst = np.unravel_index(np.argmax(np.abs(found - wanted)), found.shape)
        fault = f"result{[int(i) for i in worst]} is {found[worst]:.9g}, not {wanted[worst]:.9g}"
    return Outcome(number, attention, position_of(values), error, fault, blind)
