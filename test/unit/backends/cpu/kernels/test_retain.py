"""Attention with eviction against the reference, row by row and in one call."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.cpu.kernels.builder import f16, f32
from nybble.backends.cpu.kernels.retain import Retain
from nybble.dialects.numpy_ref.attention import attention
from nybble.dialects.numpy_ref.retain import Budget, Kept, live_slots, retain

BOUND = 2e-5
DTYPES = {"f32": (f32, np.float32), "f16": (f16, np.float16)}
KINDS = {
    "accumulated": {"by": "accumulated"},
    "last": {"by": "last", "queries": 11},
    "runs": {"by": "last", "queries": 24, "run": 4},
    "learned": {"by": "learned"},
}


def spec_of(rows, heads=2, kv_heads=1, dim=16, slots=32, budget=8, dtype="f32", kind="accumulated"):
    element = DTYPES[dtype][0]
    sizes = (kv_heads, dim, slots, budget, heads, rows)
    return Retain(*sizes, 0.3, threads=2, positions=70, element=element, **KINDS[kind])


class Text:
    """Random tokens, a state of an older text, and both sides' next step."""

    def __init__(self, rng, spec, dtype, length):
        self.spec, self.position = spec, 0
        widths = (spec.q_heads, spec.kv_heads, spec.kv_heads)
        self.tokens = [
            rng.standard_normal((length, heads * spec.head_dim)).astype(np.float32)
            for heads in widths
        ]
        self.scores = rng.standard_normal((length, spec.kv_heads)).astype(np.float32)
        heads, dim, slots = spec.kv_heads, spec.head_dim, spec.slots
        kind = DTYPES[dtype][1]
        self.state = Kept(
            rng.standard_normal((heads, dim, slots)).astype(kind),
            rng.standard_normal((heads, slots, dim)).astype(kind),
            rng.integers(0, slots, (heads, spec.positions)).astype(np.int32),
            rng.random((heads, 1 + spec.queries, slots)).astype(np.float32) if spec.by else None,
        )

    def step(self, run, count, threads=1):
        spec, at = self.spec, slice(self.position, self.position + count)
        q, k, v = (one[at] for one in self.tokens)
        scores = self.scores[at] if spec.by == "learned" else None
        budget = Budget(spec.budget, spec.scale, spec.run)
        wanted, state = retain(q, (k, v), self.state, self.position, budget, scores)
        inputs = {name: one for name, one in vars(self.state).items() if one is not None}
        inputs |= {} if scores is None else {"scores": scores}
        found = run(
            spec, n=count, pos=self.position, threads=threads, q=q, new_k=k, new_v=v, **inputs
        )
        got = found["out"][: q.size].reshape(q.shape)
        np.testing.assert_allclose(got, wanted, atol=BOUND)
        np.testing.assert_array_equal(found["moves"], state.moves.reshape(-1))
        live = live_slots(self.position + count - 1, spec.budget, spec.slots)
        for name in ("keys", "values", "mass") if spec.by else ("keys", "values"):
            want, axis = getattr(state, name), 1 if name == "values" else 2
            got = np.compress(live, found[name].reshape(want.shape), axis)
            bound = 1e-3 if name == "mass" else 0
            np.testing.assert_allclose(got, np.compress(live, want, axis), rtol=bound, atol=bound)
        self.state, self.position = state, self.position + count


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "slots", "budget"),
    [(2, 1, 16, 32, 8), (6, 2, 32, 16, 15), (3, 3, 16, 48, 1)],
)
def test_decode(run, rng, dtype, heads, kv_heads, dim, slots, budget):
    spec = spec_of(1, heads, kv_heads, dim, slots, budget, dtype)
    text = Text(rng, spec, dtype, 3 * slots)
    for _ in range(3 * slots):
        text.step(run, 1, threads=2)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_in_any_chunks(run, rng, kind):
    text = Text(rng, spec_of(40, 4, 2, kind=kind), "f32", 150)
    for count in (1, 40, 7, 33, 40, 29):
        text.step(run, count, threads=2)


def test_a_layer_repeats_the_moves_of_another(run, rng):
    """What it does not choose itself it keeps all the same, though its tokens are others."""
    first = Text(rng, spec_of(40, 4, 2, kind="runs"), "f32", 150)
    second = Text(rng, replace(first.spec, by=None, queries=0), "f32", 150)
    for count in (1, 40, 7, 33, 40, 29):
        first.step(run, count)
        second.state = replace(second.state, moves=first.state.moves)
        second.step(run, count, threads=2)


def empty(dim, slots, queries=0, positions=64):
    keys, values = np.zeros((1, dim, slots), np.float32), np.zeros((1, slots, dim), np.float32)
    mass = np.zeros((1, 1 + queries, slots), np.float32)
    return Kept(keys, values, np.zeros((1, positions), np.int32), mass)


def test_all_tokens_are_kept_until_the_slots_are_full(rng):
    q, k, v = rng.standard_normal((3, 32, 16)).astype(np.float32)
    got, _ = retain(q, (k, v), empty(16, 32), 0, Budget(8, 0.25))
    want = attention(q, k[None], v[None], 0, scale=0.25)
    np.testing.assert_allclose(got, want, atol=1e-6)


def looked_at(*places, until=64, count=64, dim=16):
    """Queries, and keys of which all queries before `until` look at those of some places."""
    k, q = np.zeros((2, count, dim), np.float32)
    k[list(places), 0] = 8
    q[:until, 0], q[until:, 0] = 1, -1
    return q, k


def test_the_heaviest_stay():
    """A token that all queries look at outlives the ring, one that nobody looks at does not."""
    q, k = looked_at(3)
    k[5, 0] = -8
    _, kept = retain(q, (k, k), empty(16, 16), 0, Budget(4, 1.0))
    assert 8 in kept.keys[0, 0]
    assert -8 not in kept.keys[0, 0]


@pytest.mark.parametrize(("queries", "stays"), [(0, True), (6, False)])
def test_the_last_queries_forget_what_was_looked_at_long_ago(queries, stays):
    q, k = looked_at(3, until=30)
    _, kept = retain(q, (k, k), empty(16, 16, queries), 0, Budget(4, 1.0))
    assert (8 in kept.keys[0, 0]) is stays


def test_a_run_stays_for_one_of_its_tokens():
    """The neighbours of a token that is looked at, though nobody looks at them."""
    q, k = looked_at(9)
    k[:, 1] = np.arange(64)
    _, kept = retain(q, (k, k), empty(16, 24), 0, Budget(8, 1.0, 4))
    assert {8, 9, 10, 11} < set(kept.keys[0, 1, :8])


def test_learned_scores_decide(rng):
    """The best given scores stay, whatever is looked at."""
    q, k = looked_at(3)
    k[:, 1] = np.arange(64)
    scores = rng.permutation(64).astype(np.float32)[:, None]
    _, kept = retain(q, (k, k), empty(16, 16), 0, Budget(4, 1.0), scores)
    gone = 64 - 12
    assert set(kept.keys[0, 1, :4]) == set(np.argsort(-scores[:gone, 0])[:4])


@pytest.mark.parametrize(("slots", "dim"), [(40, 16), (32, 24)])
def test_odd_sizes_are_refused(slots, dim):
    with pytest.raises(ValueError, match=f"{slots} slots of {dim} features: both must be"):
        spec_of(1, dim=dim, slots=slots)
