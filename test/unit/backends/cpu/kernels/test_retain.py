"""Attention with eviction against the reference, row by row and in one call."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.builder import f16, f32
from nybble.backends.cpu.kernels.retain import Retain
from nybble.dialects.numpy_ref.attention import attention
from nybble.dialects.numpy_ref.retain import live_slots, retain

BOUND = 2e-5
DTYPES = {"f32": (f32, np.float32), "f16": (f16, np.float16)}


def spec_of(rows, heads=2, kv_heads=1, dim=16, slots=32, budget=8, dtype="f32"):
    return Retain(
        kv_heads, dim, slots, budget, heads, rows, 0.3, threads=2, element=DTYPES[dtype][0]
    )


class Text:
    """Random tokens, a state, and both sides' next step."""

    def __init__(self, rng, spec, dtype, length):
        self.spec, self.position = spec, 0
        widths = (spec.q_heads, spec.kv_heads, spec.kv_heads)
        self.tokens = [
            rng.standard_normal((length, heads * spec.head_dim)).astype(np.float32)
            for heads in widths
        ]
        shape = (spec.kv_heads, spec.head_dim, spec.slots)
        kind = DTYPES[dtype][1]
        self.state = (
            rng.standard_normal(shape).astype(kind),  # of an older text
            rng.standard_normal((shape[0], shape[2], shape[1])).astype(kind),
            rng.random((shape[0], shape[2])).astype(np.float32),
        )

    def step(self, run, count, threads=1):
        spec, at = self.spec, slice(self.position, self.position + count)
        q, k, v = (one[at] for one in self.tokens)
        wanted, state = retain(
            q, (k, v), self.state, self.position, budget=spec.budget, scale=spec.scale
        )
        names = ("keys", "values", "mass")
        inputs = dict(zip(names, self.state, strict=True))
        found = run(
            spec, n=count, pos=self.position, threads=threads, q=q, new_k=k, new_v=v, **inputs
        )
        got = found["out"][: q.size].reshape(q.shape)
        np.testing.assert_allclose(got, wanted, atol=BOUND)
        live = live_slots(self.position + count - 1, spec.budget, spec.slots)
        for name, want in zip(names, state, strict=True):
            axis = 2 if name == "keys" else 1
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


def test_prompts_in_any_chunks(run, rng):
    text = Text(rng, spec_of(40), "f32", 150)
    for count in (1, 40, 7, 33, 40, 29):
        text.step(run, count, threads=2)


def test_all_tokens_are_kept_until_the_slots_are_full(rng):
    q, k, v = rng.standard_normal((3, 32, 16)).astype(np.float32)
    state = np.zeros((1, 16, 32), np.float32), np.zeros((1, 32, 16), np.float32)
    got, _ = retain(q, (k, v), (*state, np.zeros((1, 32), np.float32)), 0, budget=8, scale=0.25)
    want = attention(q, k[None], v[None], 0, scale=0.25)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_heaviest_stay(rng):
    """A token that all queries look at outlives the ring, one that nobody looks at does not."""
    count, dim = 64, 16
    k = np.zeros((count, dim), np.float32)
    k[3, 0], k[5, 0] = 8, -8
    q = np.zeros((count, dim), np.float32)
    q[:, 0] = 1
    v = rng.standard_normal((count, dim)).astype(np.float32)
    state = np.zeros((1, dim, 16), np.float32), np.zeros((1, 16, dim), np.float32)
    mass = np.zeros((1, 16), np.float32)
    _, (keys, _, _) = retain(q, (k, v), (*state, mass), 0, budget=4, scale=1.0)
    assert 8 in keys[0, 0]
    assert -8 not in keys[0, 0]


@pytest.mark.parametrize(("slots", "dim"), [(40, 16), (32, 24)])
def test_odd_sizes_are_refused(slots, dim):
    with pytest.raises(ValueError, match=f"{slots} slots of {dim} features: both must be"):
        spec_of(1, dim=dim, slots=slots)
