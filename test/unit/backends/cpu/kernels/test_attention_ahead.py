"""What decode asks memory for: prefetches turned into marks, by running the kernel."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import FloatAttr, IndexType, IntegerAttr, IntegerType
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.kernels.attention import Attention
from nybble.backends.cpu.kernels.attention_shape import RegisterTile, accumulators
from nybble.backends.cpu.kernels.kv import KvCache
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.dialects.sparse_attn.masks import parse
from nybble.dialects.upstream import PrefetchOp

MARK = 7
HEADS, DIM, CONTEXT, LINE = 2, 128, 512, 16
BLOCK = 64
CODED = KvPages(HEADS, DIM, CONTEXT, parse_kv("kv4-i8"), 65)


@dataclass(frozen=True)
class Marking(Attention):
    """An attention that writes a mark where it would prefetch; what lies outside is left out."""

    def build(self, name):
        kernel = super().build(name)
        for op in [one for one in kernel.walk() if isinstance(one, PrefetchOp)]:
            index = IndexType()
            size = op.memref.type.get_shape()[0]
            last = arith.ConstantOp(IntegerAttr(size - 1, index))
            element = op.memref.type.element_type
            of = IntegerAttr if isinstance(element, IntegerType) else FloatAttr
            mark = arith.ConstantOp(of(MARK, element))
            at = arith.MinUIOp(op.indices[0], last.result, index)
            store = memref.StoreOp.get(mark.result, op.memref, [at.result])
            Rewriter.insert_op([last, mark, at, store], InsertPoint.before(op))
            op.detach()
        return kernel


def spec(level=levels.AVX512_VNNI, **options):
    cache = KvCache(HEADS, DIM, CONTEXT)
    made = Marking(cache, 8, 1, 0.1, 1, accumulators=accumulators(level))
    made = replace(made, **options)
    return replace(made, key_block=made.shape.near_block)


def marked(run, one):
    """Which lines of keys and of values were asked for: bits [heads, lines]."""
    zeros = np.zeros((HEADS, one.cache.slots * DIM), np.float32)
    given = {"q": np.zeros(one.width, np.float32), "k": zeros, "v": zeros}
    out = run(one, n=1, pos=CONTEXT - 1, threads=1, **given)
    found = []
    for name in "kv":
        lines = np.asarray(out[name])[: zeros.size].reshape(HEADS, -1, LINE) == MARK
        lines[-1, -1, -1] = False  # what lies outside of the buffer
        found.append(lines.any(axis=2))
    return found


def rows_of(lines, size):
    """bits [heads, lines] as [heads, blocks, lines of a block of keys]."""
    return lines.reshape(HEADS, -1, size * DIM // LINE)


def test_blocks_that_follow_each_other(run):
    keys, values = marked(run, spec())
    assert not keys.any()
    each = rows_of(values, 32)
    assert each[:, :, :64].all()
    assert not each[:, :, 64:].any()


@pytest.mark.parametrize(
    ("mask", "seen"), [("stride(64,2)", [0, 2, 4, 6]), ("streaming(64,128)", [0, 6, 7])]
)
def test_blocks_that_lie_apart(run, mask, seen):
    one = spec(mask=parse(mask))
    keys, values = (rows_of(lines, BLOCK) for lines in marked(run, one))
    want = np.zeros((HEADS, CONTEXT // BLOCK), bool)
    want[:, seen] = True
    np.testing.assert_array_equal(values.all(axis=2), want)
    np.testing.assert_array_equal(values.any(axis=2), want)
    want[0, seen[0]] = False  # nothing comes before the first block of all
    np.testing.assert_array_equal(keys.all(axis=2), want)
    np.testing.assert_array_equal(keys.any(axis=2), want)


@pytest.mark.parametrize(
    "options", [{"level": levels.X86_64_V3}, {"registers": RegisterTile(4, 1, 4)}]
)
def test_registers_that_keep_few_sums(run, options):
    keys, values = marked(run, spec(**options))
    for lines in keys, values:
        assert lines[1].all()
        assert rows_of(lines, BLOCK)[0, 1:].all()


@pytest.mark.parametrize("name", ["kv8-i8", "kv4-i8", "kv2-i8", "kv4"])
@pytest.mark.parametrize("level", [levels.AVX512_VNNI, levels.X86_64_V3])
def test_codes(run, name, level):
    pages = KvPages(HEADS, DIM, CONTEXT, parse_kv(name), 65)
    one = spec(level, cache=pages, isa=level)
    out = run(one, n=1, pos=CONTEXT - 1, threads=1, q=np.zeros(one.width, np.float32))
    for side in "kv":
        words = np.asarray(out[f"{side}_codes"]).view(np.int32)
        blocks = words.reshape(HEADS, CONTEXT // BLOCK, -1, LINE) == MARK
        np.testing.assert_array_equal(blocks[:, 1:-1].any(axis=3), True)


@pytest.mark.parametrize(
    ("options", "localities"),
    [
        ({}, {2}),
        ({"mask": parse("stride(64,2)")}, {2}),
        ({"level": levels.X86_64_V3}, {3}),
        ({"rows": 40}, set()),
        ({"cache": CODED, "isa": levels.AVX512_VNNI}, {2, 3}),
    ],
)
def test_cache_into_which_memory_is_asked(options, localities):
    kernel = Attention.build(spec(**options), "f")
    asked = [one for one in kernel.walk() if isinstance(one, PrefetchOp)]
    assert {one.localityHint.value.data for one in asked} == localities
