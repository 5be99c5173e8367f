"""`nybble verify --target cuda --op sparse_attn.attention`: kernels of attention in the simulator.

Everything follows from the seed and the number of the case: decode over every format of a cache,
with lists of blocks, keys that several blocks of threads share and then merge, and both kinds of
softmax, and prefill with and without lists and over codes; where a cache with codes keeps tokens as
they are, also sequences that end where codes begin, and empty ones. Queries, keys and values are
rounded as the kernel has them before the f64 reference sees them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.attention.coded import CodedCache
from nybble.backends.gpu.kernels.attention.decode import decode_image
from nybble.backends.gpu.kernels.attention.prefill import ROWS, PrefillSpec, prefill_image
from nybble.backends.gpu.kernels.attention.spec import CACHES, DecodeSpec
from nybble.backends.gpu.packing.cache import pack_cache
from nybble.backends.gpu.sim.simulate import simulate
from nybble.dialects.errors import InternalError, NybbleError
from nybble.dialects.lowbit.formats.numeric import decode_floats, encode_floats
from nybble.dialects.sparse_attn.kv import KEYS, VALUES, parse

F64 = npt.NDArray[np.float64]
Buffers = dict[str, npt.NDArray[np.generic]]
BLOCK, CONTEXT = 64, 128
SCALES = (0.0, 1.0, 1.0, 8.0)
"""Of queries: logits of 0, of about 1, and of a softmax that few keys share."""
LOST = {"f16": 4 * 2.0**-11, "bf16": 4 * 2.0**-8}
"""Error allowed, of the largest value: weights and results are rounded to the type of the cache."""
PREFILL_EVERY = 3
KEPT = ("kivi4(32,32,64)", "kivi2(16,32)", "kivi4(64,0)", "kv4(32)")
"""Formats of caches that keep tokens as they are; their contexts have a page more."""


@dataclass(frozen=True)
class AttentionCase:
    """One launch. lengths: keys of each sequence, with those of the new tokens."""

    number: int
    arch: str
    spec: DecodeSpec | PrefillSpec
    lengths: tuple[int, ...]

    def report(self) -> dict[str, object]:
        """The case in the words of the command's report."""
        kind = "decode" if isinstance(self.spec, DecodeSpec) else "prefill"
        return {"case": self.number, "arch": self.arch, "kernel": kind, "lengths": self.lengths,
                **asdict(self.spec)}  # fmt: skip


@dataclass(frozen=True)
class AttentionOutcome:
    """error: the largest, over what is allowed; fault: what is wrong, empty if nothing is."""

    case: AttentionCase
    error: float
    fault: str = ""

    def report(self) -> dict[str, object]:
        """The case in the words of the command's report."""
        return {**self.case.report(), "error": self.error, "fault": self.fault}


def drawn(seed: int, number: int, archs: tuple[str, ...]) -> AttentionCase:
    """The case of a number >= 0: kernels and formats in turn, all else at random."""
    random = np.random.default_rng([seed, number, 3])
    sequences, kv_heads, group = (int(random.choice(one)) for one in ((1, 2), (1, 2), (1, 3, 8)))
    arch, listed = str(random.choice(archs)), bool(random.integers(2))
    if number % PREFILL_EVERY == PREFILL_EVERY - 1:
        tokens = int(random.choice([1, 5, 64, 70]))
        spec = PrefillSpec(
            sequences, kv_heads, min(group, 3), int(random.choice([64, 128])), CONTEXT, tokens,
            0.125, str(random.choice(["f16", "bf16"])), listed,
        )  # fmt: skip
        if random.integers(2):
            spec = over_codes(spec, random)
        most = [int(random.integers(tokens, spec.context + 1)) for _ in range(sequences)]
        return AttentionCase(number, arch, spec, tuple(most))
    turn = number - number // PREFILL_EVERY
    names = (*CACHES, *KEPT)
    spec = of_cache(names[turn % len(names)], (sequences, kv_heads, group), random)
    if random.integers(2):
        spec = replace(spec, softmax="unified")
    if listed and not spec.room:
        spec = replace(spec, block=BLOCK)
    spec = replace(spec, splits=int(random.choice([1, 2])), warps=int(random.choice([1, 2, 4])))
    lengths = [int(one) for one in random.integers(1, spec.context + 1, sequences)]
    if spec.room and random.integers(2):
        lengths = [int(one) for one in random.choice(edges(spec), sequences)]
    return AttentionCase(number, arch, spec, tuple(lengths))


def of_cache(name: str, heads: tuple[int, int, int], random: np.random.Generator) -> DecodeSpec:
    """Decode over a format; heads: sequences, heads of the cache, queries for each of them."""
    kept = name in KEPT
    size = int(random.choice([64, 128])) if kept and parse(name).bits > 2 else 128
    room = parse(name).room(int(random.choice([1, 30]))) if kept else 0
    return DecodeSpec(*heads, size, CONTEXT + BLOCK * kept, 0.09, name, room)


def over_codes(spec: PrefillSpec, random: np.random.Generator) -> PrefillSpec:
    """The same over a cache that keeps tokens as they are."""
    name = str(random.choice(KEPT))
    room = parse(name).room(spec.tokens + int(random.choice([0, 30])))
    return replace(
        spec, half="f16", block_lists=False, context=CONTEXT + BLOCK, cache=name, room=room
    )  # fmt: skip


def edges(spec: DecodeSpec) -> list[int]:
    """Keys with which a sequence has none, or begins to have tokens of some kind."""
    kv = spec.format
    first = kv.recent + kv.page
    pinned = (kv.pinned, kv.pinned + 1, kv.pinned + first, kv.pinned + first + 1)
    return [0, 1, kv.recent + 1, first, first + 1, *pinned, spec.context]


def run_case(seed: int, case: AttentionCase) -> AttentionOutcome:
    """Compile, execute and judge one case in this process."""
    spec, arch = case.spec, find_arch(case.arch)
    try:
        image = (
            decode_image(spec, arch) if isinstance(spec, DecodeSpec) else prefill_image(spec, arch)
        )
        problem = Problem(case, np.random.default_rng([seed, case.number, 4]))
        given = problem.buffers
        for one in image.parameters:
            given.setdefault(one.name, np.zeros(one.bytes, np.uint8))
        simulate(image, {one.name: given[one.name] for one in image.parameters}).check()
    except (NybbleError, InternalError) as error:
        return AttentionOutcome(case, np.inf, f"{type(error).__name__}: {error}")
    found = decode_floats(problem.half, given["out"].view(np.uint8)).astype(np.float64)
    return judged(case, problem, found.reshape(problem.q.shape))


class Problem:
    """Random arguments of a kernel, and what they mean.

    q: f64 [sequences, tokens, heads, head_dim]. keys, values: f64 [sequences, kv_heads, context,
    head_dim]. seen: bool [sequences, heads, tokens, context].
    """

    def __init__(self, case: AttentionCase, random: np.random.Generator) -> None:
        spec = self.spec = case.spec
        self.random, self.lengths = random, case.lengths
        self.half = spec.half
        self.tokens = 1 if isinstance(spec, DecodeSpec) else spec.tokens
        self.heads = spec.kv_heads * spec.group
        self.buffers: Buffers = {"lengths": np.array(case.lengths, np.int32)}
        shape = (spec.sequences, self.tokens, self.heads, spec.head_dim)
        self.q = self.floats("q", random.standard_normal(shape) * random.choice(SCALES))
        self.seen = self.causal()
        self.keys, self.values = self.kept() if spec.room else map(self.cache, "kv")
        if isinstance(spec, PrefillSpec) and spec.block_lists:
            self.list_blocks(self.heads, spec.row_tiles)
        elif isinstance(spec, DecodeSpec) and spec.block:
            self.list_blocks(spec.kv_heads, 1)

    def floats(self, name: str, values: F64) -> F64:
        """The values as the kernel has them; keeps their buffer."""
        data = encode_floats(self.half, values.astype(np.float32))
        self.buffers[name] = data
        return decode_floats(self.half, data).astype(np.float64).reshape(values.shape)

    def cache(self, name: str) -> F64:
        """Keys or values, of codes or of floats."""
        spec = self.spec
        shape = (spec.sequences, spec.kv_heads, spec.context, spec.head_dim)
        if isinstance(spec, PrefillSpec) or not spec.quantized:
            return self.floats(name, self.random.standard_normal(shape))
        codes = self.random.integers(0, 2**spec.bits, shape, np.uint8)
        parts = codes.reshape(*shape[:3], -1, 8 // spec.bits).astype(np.int64)
        places = np.arange(0, 8, spec.bits)
        self.buffers[name] = (parts << places).sum(axis=-1).astype(np.uint8)
        pages = (*shape[:2], spec.context // spec.key_group, spec.head_dim)
        by = pages if name == "k" else shape[:3]
        scales = (self.random.uniform(0.5, 1.5, by) * 3 / 2**spec.bits).astype(np.float16)
        minima = self.random.normal(-1.5, 0.3, by).astype(np.float16)
        self.buffers |= {f"{name}_scales": scales, f"{name}_minima": minima}
        spread: Callable[[npt.NDArray[np.float16]], F64] = (
            (lambda one: np.repeat(one.astype(np.float64), spec.key_group, axis=2))
            if name == "k"
            else (lambda one: one.astype(np.float64)[..., None])
        )
        return codes * spread(scales) + spread(minima)

    def kept(self) -> tuple[F64, F64]:
        """Keys and values of a cache that keeps tokens as they are: what codes mean, and behind
        them what tokens are; each query sees either of a token."""
        spec, cache = self.spec, self.spec.coded
        assert cache is not None
        shape = (spec.sequences, spec.kv_heads, spec.context, spec.head_dim)
        k, v = (self.random.standard_normal(shape).astype(np.float16) for _ in "kv")
        self.buffers |= pack_cache(cache, k, v, self.lengths, self.tokens)
        last = np.array(self.lengths)[:, None] - self.tokens + np.arange(self.tokens)
        ends = cache.format.boundaries(last)[:, None, :, None]
        codes = cache.format.is_code(np.arange(spec.context), ends)
        self.seen = np.concatenate([self.seen & codes, self.seen & ~codes], axis=-1)
        return self.meant(cache, KEYS, k), self.meant(cache, VALUES, v)

    def meant(self, cache: CodedCache, side: str, tokens: npt.NDArray[np.float16]) -> F64:
        """What the codes of the last query of each sequence mean, and the tokens."""
        kv = cache.format
        pairs = zip(tokens, self.lengths, strict=True)
        codes = [kv.decoded(side, one, kv.boundary(length - 1)) for one, length in pairs]
        return np.concatenate([np.stack(codes), tokens], axis=2).astype(np.float64)

    def causal(self) -> npt.NDArray[np.bool_]:
        """What each token sees without lists."""
        spec = self.spec
        last = np.array(self.lengths)[:, None] - self.tokens + np.arange(self.tokens)
        seen = np.arange(spec.context) <= last[:, :, None]
        return np.repeat(seen[:, None], self.heads, axis=1)

    def list_blocks(self, heads: int, tiles: int) -> None:
        """Some blocks of 64 keys for each head (of the cache, or of queries) and tile of tokens."""
        spec, most = self.spec, self.spec.context // BLOCK
        shape = (spec.sequences, heads, tiles)
        counts = self.random.integers(0, most + 1, shape).astype(np.int32)
        order = self.random.permuted(np.broadcast_to(np.arange(most), (*shape, most)), axis=-1)
        self.buffers |= {
            "block_list": np.ascontiguousarray(order, np.int32),
            "block_counts": counts,
        }
        chosen = np.zeros((*shape, most), np.bool_)
        np.put_along_axis(chosen, order, np.arange(most) < counts[..., None], axis=-1)
        keys = np.repeat(chosen, BLOCK, axis=-1)
        by_head = np.repeat(keys, self.heads // heads, axis=1)
        self.seen &= np.repeat(by_head, ROWS, axis=2)[:, :, : self.tokens]

    def exact(self) -> F64:
        """The results; 0 where a token sees no key."""
        spec, group = self.spec, self.spec.group
        k, v = (np.repeat(one, group, axis=1) for one in (self.keys, self.values))
        logits = np.einsum("sthd,shcd->shtc", self.q, k) * spec.scale
        logits = np.where(self.seen, logits, -np.inf)
        largest = logits.max(axis=-1, keepdims=True)
        weights = np.exp(logits - np.where(np.isfinite(largest), largest, 0.0))
        total = weights.sum(axis=-1, keepdims=True)
        shares = weights / np.where(total > 0, total, 1.0)
        return np.einsum("shtc,shcd->sthd", shares, v)


def judged(case: AttentionCase, problem: Problem, found: F64) -> AttentionOutcome:
    """Hold a result against the reference: logits of size s are known to s times their type."""
    exact = problem.exact()
    logits = 1.0 + case.spec.scale * np.abs(problem.q).max() * case.spec.head_dim**0.5
    allowed = LOST[problem.half] * np.abs(problem.values).max() * min(logits, 4.0)
    if not np.isfinite(found).all():
        return AttentionOutcome(case, np.inf, "a result is not finite")
    errors = np.abs(found - exact)
    worst = np.unravel_index(np.argmax(errors), errors.shape)
    error = float(errors[worst] / allowed)
    place = [int(one) for one in worst]
    said = f"result{place} is {found[worst]:.9g}, {exact[worst]:.9g} is right"
    return AttentionOutcome(case, error, said if error > 1 else "")
