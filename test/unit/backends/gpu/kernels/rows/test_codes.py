"""Appends to caches with codes: calls leave what packing all of their tokens gives."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.attention.coded import CodedCache
from nybble.backends.gpu.kernels.rows.codes import CodesSpec
from nybble.backends.gpu.packing.cache import pack_cache
from nybble.backends.gpu.sim.simulate import simulate
from nybble.backends.gpu.steps.lower import steps_of
from nybble.backends.gpu.steps.values import Storage, holder
from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.sparse_attn.kv import KvFormat, parse
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import stages_between

TEXT = """
func.func @f(%a: tensor<{rows}x{width}xf32>, %b: tensor<{rows}x{width}xf32>, %k: {keys},
             %v: {values}, %p: index) -> ({keys}, {values}) {{
  %0 = sparse_attn.append_kv %a into %k at %p : tensor<{rows}x{width}xf32> into {keys} -> {keys}
  %1 = sparse_attn.append_kv %b into %v at %p : tensor<{rows}x{width}xf32> into {values}
    -> {values}
  func.return %0, %1 : {keys}, {values}
}}
"""
PARTS = ("", "_scales", "_minima")


class Cache:
    """A cache in memory, and what appends to it. most: rows that one call appends at most."""

    def __init__(self, name, shape, most, room=None):
        self.kv, self.shape, self.most = parse(name), shape, most
        self.room = self.kv.room(most) if room is None else room
        self.heads, self.context, self.dim = shape
        self.cache = CodedCache(self.heads, self.dim, self.context, name, self.room)
        zeros = np.zeros((1, *shape), np.float16)
        self.memory = {k: v.copy() for k, v in pack_cache(self.cache, zeros, zeros, [0]).items()}
        self.calls = {}
        random = np.random.default_rng(5)
        self.tokens = [random.standard_normal(shape).astype(np.float32) for _ in "kv"]
        self.tokens[0][:, :, 3] = 0.25  # a channel of keys without a range
        self.length = 0

    def steps(self, rows, arch="sm_80"):
        """The launches of an append of some rows."""
        ends = f'{"x".join(map(str, self.shape))}, "{self.kv.name}", {self.room}>'
        keys, values = (f"!sparse_attn.cache<{side} {ends}" for side in ("keys", "values"))
        width = self.heads * self.dim
        module = parse_module(
            make_context(), TEXT.format(rows=rows, width=width, keys=keys, values=values), "<test>"
        )
        options = {"target": "cuda", "isa": arch, "activations": "f16", "prefill": "f16"}
        for stage in stages_between("operators", "scheduled"):
            run_passes(make_context(), module, configure(build_pipeline(stage.passes), options))
        function = module.body.block.first_op
        names = dict(zip(function.body.block.args, ("a", "b", "k", "v", "position"), strict=True))
        made = []
        for step in steps_of(function, find_arch(arch), Storage()):
            bound = {p: (names[holder(s.values[0])], s.form) for p, s in step.slots.items()}
            made.append((step.compile(find_arch(arch), "k").image, bound))
        return made

    def append(self, rows):
        """The next rows of both sides, in the simulator."""
        if rows not in self.calls:
            self.calls[rows] = self.steps(rows)
        span = slice(self.length, self.length + rows)
        given = {"position": np.array([self.length], np.int32)}
        for name, side in zip("ab", self.tokens, strict=True):
            given[name] = np.ascontiguousarray(side[:, span].swapaxes(0, 1)).reshape(rows, -1)
        for image, bound in self.calls[rows]:
            arguments = {}
            for parameter, (value, form) in bound.items():
                name = f"{value}_{form}" if form else value
                arguments[parameter] = given[name] if name in given else self.memory[name]
            simulate(image, arguments).check()
        self.length += rows

    def wanted(self):
        """What the cache holds by the reference."""
        halves = [side.astype(np.float16)[None] for side in self.tokens]
        return pack_cache(self.cache, *halves, [self.length])

    def check(self):
        """Codes, scales, minima and tokens that are no codes are the reference's, bit for bit."""
        wanted = self.wanted()
        for name in (side + part for side in "kv" for part in PARTS):
            np.testing.assert_array_equal(
                self.memory[name].view(np.uint8), wanted[name].view(np.uint8), name
            )
        for name in ("k_exact", "v_exact"):
            held, exact = (one[name].reshape(-1, self.dim) for one in (self.memory, wanted))
            live = exact.any(axis=1)
            np.testing.assert_array_equal(held[live], exact[live], name)


@pytest.mark.parametrize(
    ("given", "calls"),
    [
        # (32 recent + 64 of a page + 1 tokens make the first codes): full, one over; then decoding
        (("kivi4(32,32)", (2, 192, 64), 64), (64, 32, 1, *[1] * 63, 1)),
        (("kivi4(16,16,64)", (1, 320, 64), 200), (200, *[1] * 20, 64)),  # a prompt of many groups
        (("kivi2(16,0)", (1, 192, 128), 70), (1, 70, 70)),
        (("kivi2(64,64,64)", (1, 320, 128), 64), (64, 64, 64, 1, 64)),
        (("kv8(16)", (1, 64, 64), 17), (17, 1, 16, 14)),
        (("kv4", (1, 192, 128), 3), (1, *[3] * 22)),
    ],
)
def test_codes_are_those_of_the_reference(given, calls):
    cache = Cache(*given)
    cache.check()
    for rows in calls:
        cache.append(rows)
        cache.check()
    assert cache.kv.boundary(cache.length - 1) > cache.kv.pinned, "no codes were made"


def test_a_wrong_spread_would_be_seen(monkeypatch):
    cache = Cache("kivi2(16,0)", (1, 192, 128), 70)
    monkeypatch.setattr(KvFormat, "spread_of", lambda *_: 0.81)
    cache.calls[70] = cache.steps(70)
    monkeypatch.undo()
    cache.append(70)
    with pytest.raises(AssertionError, match="Mismatched elements"):
        cache.check()


def test_a_token_too_many_is_dropped():
    cache = Cache("kv4", (1, 128, 64), 64)
    for rows in (64, 63):
        cache.append(rows)
    before = {name: one.copy() for name, one in cache.memory.items()}
    cache.length = 128
    cache.tokens = [np.zeros((1, 192, 64), np.float32)] * 2
    cache.append(63)
    for name, one in cache.memory.items():
        np.testing.assert_array_equal(one, before[name])


def test_a_ring_that_is_too_small_is_refused():
    with pytest.raises(NybbleError, match=r"64 tokens at once into 'kivi4\(32,32\)' with room for"):
        Cache("kivi4(32,32)", (1, 192, 64), 64, room=97).steps(64)


def test_names_tell_what_a_kernel_is_for():
    cache = Cache("kivi4(32,32)", (1, 192, 64), 3)
    assert CodesSpec(3, cache.cache, ("keys", "values")).name == "codes_kivi4_3x1x64"
