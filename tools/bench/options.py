"""What a benchmark is asked to measure, as data, and how it is spelled on a command line."""

import re
from dataclasses import dataclass
from pathlib import Path

from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.frontend.weight_choice import AS_STORED, WeightChoice
from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.peers.llama_bench import External
from nybble.tools.bench.peers.requantize import AUTO
from nybble.tools.bench.rounds import Schedule
from nybble.tools.bench.text import WINDOW

HOT, COLD = "hot", "cold"
CACHES = (HOT, COLD)
COLD_BYTES = 200 * 10**6
KERNEL_SCHEDULE = Schedule(rounds=15)
MODEL_SCHEDULE = Schedule(rounds=5)
CONTEXT_STEP = 256
LARGEST = 1 << 20  # of a dimension, tokens or threads: beyond it is a slip of the finger


@dataclass(frozen=True)
class Shape:
    """Of a weight: y[n, rows] = x[n, cols] @ W[rows, cols].T."""

    rows: int
    cols: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


@dataclass(frozen=True)
class KernelOptions:
    """All combinations of these are measured.

    activations: modes of ours. cold_bytes: how many bytes of weights a cold product goes through
    before it meets one again.
    """

    formats: tuple[str, ...]
    shapes: tuple[Shape, ...]
    n: tuple[int, ...] = (1,)
    caches: tuple[str, ...] = (HOT,)
    threads: tuple[int, ...] = (1,)
    peers: tuple[str, ...] = ()
    cold_bytes: int = COLD_BYTES
    activations: tuple[str, ...] = ("i8",)
    schedule: Schedule = KERNEL_SCHEDULE


@dataclass(frozen=True)
class ModelOptions:
    """What is measured of one model.

    model: path or alias. peer_types: file types the peers run, "same" being the file itself,
    "auto" that and the peers' fastest type of at least as many bits.
    depths: positions that decoding starts from. activations: a mode, of ours. kv: format
    of our cache, None for the mode's own. folder: where requantized models are kept. perplexity:
    whether it is measured. weights: what becomes of ours.
    """

    model: str
    folder: Path
    peers: tuple[str, ...] = ()
    peer_types: tuple[str, ...] = (AUTO,)
    threads: tuple[int, ...] = (1,)
    prompt_tokens: int = 512
    decode_tokens: int = 64
    depths: tuple[int, ...] = (0, 512)
    activations: str = "i8"
    kv: str | None = None
    externals: tuple[External, ...] = ()
    perplexity: bool = True
    schedule: Schedule = MODEL_SCHEDULE
    weights: WeightChoice = AS_STORED

    @property
    def tokens(self) -> int:
        """Of the longest text of the measurement."""
        return max(self.prompt_tokens, max(self.depths) + self.decode_tokens)

    @property
    def context(self) -> int:
        """Positions that contexts have room for: the tokens, a window of perplexity, rounded up."""
        return -(-max(self.tokens, WINDOW) // CONTEXT_STEP) * CONTEXT_STEP


def parse_names(text: str) -> tuple[str, ...]:
    """A comma-separated list of names, each once; raises BenchError if there is none."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise BenchError(f"'{text}' names nothing", accepted="names with commas between them")
    return names


def parse_counts(text: str, least: int = 1) -> tuple[int, ...]:
    """A comma-separated list of whole numbers from `least` on, each once; raises BenchError."""
    return tuple(_count(name, least) for name in parse_names(text))


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """A comma-separated list of ROWSxCOLS; raises BenchError."""
    return tuple(_shape(name) for name in parse_names(text))


def parse_choices(text: str, accepted: tuple[str, ...]) -> tuple[str, ...]:
    """A comma-separated list of names out of `accepted`; raises BenchError."""
    names = parse_names(text)
    for name in names:
        if name not in accepted:
            raise BenchError(f"'{name}' is not one of the choices", accepted=", ".join(accepted))
    return names


def parse_caches(text: str) -> tuple[str, ...]:
    """A comma-separated list of formats of caches, each once; raises BenchError, KvError."""
    parts = re.split(r",(?![^(]*\))", text)  # a comma in parentheses is a format's own
    names = tuple(dict.fromkeys(parse_kv(part).name for part in parts if part.strip()))
    if not names:
        raise BenchError(f"'{text}' names nothing", accepted="formats with commas between them")
    return names


def _shape(text: str) -> Shape:
    rows, cross, cols = text.partition("x")
    if not cross:
        raise BenchError(f"'{text}' is no shape", accepted="ROWSxCOLS, such as 4096x4096")
    return Shape(_count(rows, 1), _count(cols, 1))


def _count(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= LARGEST:
        raise BenchError(f"'{text}'", accepted=f"a whole number from {least} to {LARGEST}")
    return int(text)
