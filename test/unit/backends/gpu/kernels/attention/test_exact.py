"""Attention over caches with codes that keep tokens as they are, from a file to results in f64."""

import numpy as np
import pytest

from nybble.backends.gpu import ptxas
from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.packing import cache as packing
from nybble.backends.gpu.packing.cache import pack_cache
from nybble.backends.gpu.sim.simulate import simulate
from nybble.backends.gpu.steps.lower import steps_of
from nybble.backends.gpu.steps.values import Storage
from nybble.dialects.errors import NybbleError
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.sparse_attn.kv import VALUES, parse
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import stages_between

LOST = 4 * 2.0**-11
"""Error allowed, of the largest value: weights, values and results are rounded to f16."""
TEXT = """
func.func @f(%q: tensor<{rows}x{width}xf32>, %k: {keys}, %v: {values}, %p: index)
    -> tensor<{rows}x{width}xf32> {{
  %r = sparse_attn.attention %q, %k, %v at %p mask <"causal"> scale 1.25e-01 softmax "{softmax}"
    : tensor<{rows}x{width}xf32>, {keys}, {values} -> tensor<{rows}x{width}xf32>
  func.return %r : tensor<{rows}x{width}xf32>
}}
"""


class Attention:
    """One attention of a file, of one token or of `rows`.

    shape: heads of the cache, context, features of a head.
    """

    def __init__(self, cache, shape, group, softmax="online", rows=1):
        kv = parse(cache)
        self.rows = rows
        self.shape, self.width = shape, shape[0] * group * shape[2]
        ends = f'{"x".join(map(str, shape))}, "{kv.name}", {kv.room(rows)}>'
        keys, values = (f"!sparse_attn.cache<{side} {ends}" for side in ("keys", "values"))
        text = TEXT.format(
            rows=rows, width=self.width, keys=keys, values=values, softmax=softmax
        )  # fmt: skip
        self.module = parse_module(make_context(), text, "<test>")

    def step(self, arch):
        """What the function becomes."""
        module = self.module.clone()
        options = {"target": "cuda", "isa": arch, "activations": "f16", "prefill": "f16"}
        for stage in stages_between("operators", "scheduled"):
            run_passes(make_context(), module, configure(build_pipeline(stage.passes), options))
        (step,) = steps_of(module.body.block.first_op, find_arch(arch), Storage())
        return step

    def errors(self, lengths, arch="sm_80"):
        """The largest error for each number of tokens, of what is allowed."""
        step = self.step(arch)
        image = step.compile(find_arch(arch), "k").image
        random = np.random.default_rng(3)
        q = random.standard_normal((self.rows, self.width)).astype(np.float16)
        k, v = (random.standard_normal(self.shape).astype(np.float16) for _ in "kv")
        for length in lengths:
            given = {one.name: np.zeros(one.bytes, np.uint8) for one in image.parameters}
            given |= pack_cache(step.spec.coded, k[None], v[None], [length], self.rows)
            given |= {"q": q, "lengths": np.array([length], np.int32)}
            given["out"] = np.full(q.shape, np.nan, np.float16)
            report = simulate(image, given)
            report.check()
            lines = image.ptx.splitlines()
            slow = [lines[one.line - 1] for one in report.shared if one.taken > one.ideal]
            if self.rows == 1:
                assert all("cp.async" in line for line in slow), "but scales by groups of features"
            exact = Interpreter(self.module).call(
                "f", q.astype(np.float32), k, v, length - self.rows
            )[0]
            yield float(np.abs(given["out"] - exact).max() / (LOST * np.abs(v).max()))


@pytest.mark.parametrize(
    ("given", "lengths"),
    [  # the first code is read from recent + page + 1 tokens on, or from so many behind pinned ones
        (("kivi4(32,32)", (2, 192, 64), 3), (0, 1, 33, 96, 97, 160, 161)),
        (("kivi4(32,32,64)", (1, 512, 64), 8, "unified"), (5, 64, 65, 160, 161, 256)),
        (("kivi2(16,16)", (1, 128, 128), 16), (0, 17, 80, 81, 128)),
        (("kv4(32)", (1, 512, 64), 1), (31, 32, 33, 500)),
        # of many tokens: the last sees codes of which the first sees tokens, and blocks differ
        (("kivi4(32,32)", (2, 256, 64), 2, "online", 8), (8, 97, 100, 256)),
        (("kivi4(32,32,64)", (1, 512, 64), 1, "online", 70), (70, 160, 165, 512)),
        (("kivi2(16,16)", (1, 256, 128), 1, "online", 70), (70, 81, 200)),
        (("kv8(16)", (1, 256, 128), 1, "online", 20), (20, 30, 250)),
    ],
)
def test_attends(given, lengths):
    errors = list(Attention(*given).errors(lengths))
    assert len(errors) == len(lengths)
    assert max(errors) < 1, dict(zip(lengths, errors, strict=True))


def test_a_token_in_a_wrong_row_would_be_seen(monkeypatch):
    fill = packing._fill

    def rolled(cache, made, side, rows, queries):
        fill(cache, made, side, np.roll(rows, int(side == VALUES), axis=0), queries)

    monkeypatch.setattr(packing, "_fill", rolled)
    assert max(Attention("kv4(32)", (1, 512, 64), 1).errors((20,))) > 10


def test_assembles_without_spills():
    try:
        ptxas.tool("ptxas")
    except GpuError as error:
        pytest.skip(error.message)
    for rows in (1, 64):
        step = Attention("kivi4", (8, 1024, 128), 4, rows=rows).step("sm_80")
        image = step.compile(find_arch("sm_80"), "k").image
        assert ptxas.assemble(image.ptx, "sm_80").spills == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("kivi4(32,32)-i8", (1, 128, 64), 1), r"attention over .*-i8\", 97> has no kernel"),
        (("gear4(2,1,32,32)", (1, 128, 64), 1), "attention over .*gear4"),
        (("kivi2(32,32)", (1, 128, 64), 1), r"a 'kivi2\(32,32\)' cache of rows of 64"),
    ],
)
def test_what_has_no_kernel_is_refused(given, message):
    with pytest.raises(NybbleError, match=message):
        Attention(*given).step("sm_80")


@pytest.mark.parametrize(
    ("changes", "shape", "lengths", "message"),
    [
        ({"room": 0, "cache": "kv4"}, (1, 1, 128, 128), (3,), "a cache of 'kv4' without room"),
        ({}, (1, 1, 128, 64), (3,), r"a cache of \(1, 1, 128, 64\)"),
        ({}, (1, 1, 128, 128), (129,), r"lengths \(129,\) \(accepted: 0 to 128 each"),
        ({}, (2, 0, 128, 128), (3, 4), r"lengths \(3, 4\)"),
    ],
)
def test_packs_only_what_fits(decode_spec, changes, shape, lengths, message):
    kept = {"sequences": 1, "cache": "kivi4(32,32)", "room": 97}
    spec = decode_spec(**kept | changes)
    cache = np.zeros(shape, np.float16)
    with pytest.raises(NybbleError, match=message):
        pack_cache(spec.coded, cache, cache, lengths)
