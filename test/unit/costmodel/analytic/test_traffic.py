"""Which memory serves which bytes, against a simulated cache, and what bounds a time."""

from dataclasses import replace

import pytest

from nybble.costmodel.analytic.cost import Cost, tally
from nybble.costmodel.analytic.products import ProductSize, product
from nybble.costmodel.analytic.roofline import time
from nybble.costmodel.analytic.traffic import Stream, traffic
from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.targets.reader import find_target
from nybble.costmodel.targets.target import Fact
from nybble.dialects.lowbit import formats

AVX2 = find_target("cpu-avx2")


def misses(size, capacity, passes):
    """Units that a cache of `capacity` units with least recent use misses, reading in a circle."""
    held: list[int] = []
    missed = 0
    for unit in [*range(size)] * passes:
        if unit in held:
            held.remove(unit)
        else:
            missed += 1
        held.append(unit)
        del held[:-capacity]
    return missed


@pytest.mark.parametrize("size", [3, 8, 9, 20])
@pytest.mark.parametrize("passes", [1, 4])
def test_a_circle_misses_as_in_a_cache_with_least_recent_use(size, passes):
    small = replace(AVX2.memory[0], size=Fact(8.0, "test"))
    stream = Stream("read", size, again=size, passes=passes, between=size)
    found = traffic(stream, (small, AVX2.memory[1]), 1)
    assert found["l1"] == size * passes
    assert found["l2"] == misses(size, 8, passes)


def test_private_memories_hold_the_parts_of_each_core():
    stream = Stream("read", 100 << 10, age=100 << 10)
    assert traffic(stream, AVX2.memory, 1)["l2"] == 100 << 10
    assert traffic(stream, AVX2.memory, 4)["l2"] == 0  # 4 x 32 KiB


def test_bounds():
    free = replace(AVX2, launch=Fact(1e-5, "test"))
    compute = time(Cost(tally({"f32": 48 * 10**9})), free, 1)
    assert (compute.bound, compute.limit) == ("compute", "vector")
    assert compute.seconds == pytest.approx(1.0)
    memory = time(Cost(read=tally({"dram": 10_600_000_000, "l1": 1})), free, 1)
    assert (memory.bound, memory.limit, memory.seconds) == ("memory", "dram", pytest.approx(1.0))
    launch = time(Cost(tally({"f32": 1}), launches=3), free, 1)
    assert (launch.bound, launch.limit, launch.seconds) == ("launch",) * 2 + (pytest.approx(3e-5),)


def test_kinds_of_one_unit_take_turns_and_units_work_side_by_side():
    h100 = find_target("h100")
    both = tally({"f16": 989_400_000, "bf16": 989_400_000, "f32": 66_900_000})
    assert time(Cost(both), h100).seconds == pytest.approx(2e-6)


def size(tokens, rows=256, cols=1024, spec="q4_0"):
    return ProductSize(
        formats.get(spec), rows, cols, tokens, "i8", 1, tokens * cols, tokens * rows * 4
    )


def cost(tokens, tile, **sizes):
    return product(size(tokens, **sizes), tile).cost(AVX2, CostOptions(tokens, cores=1))


def test_a_tile_that_outgrows_its_memory_moves_the_traffic_outwards():
    """64 rows of 256 columns of decoded bytes fit 32 KiB, 64 rows of 1024 do not."""
    small, large = (cost(64, replace(AVX2.tile, cols=cols)) for cols in (256, 1024))
    assert small.read["l1"] == large.read["l1"]
    assert small.read["l2"] < large.read["l2"]
    assert small.read["dram"] == large.read["dram"] == 256 * 1024 * 18 // 32


def test_larger_tiles_read_the_nearest_memory_less():
    found = [cost(64, replace(AVX2.tile, tokens=tokens)).read["l1"] for tokens in (1, 4, 16)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 3


@pytest.mark.parametrize("keeps", [True, False])
def test_more_tokens_never_move_less(keeps):
    tile = replace(AVX2.tile, keeps=keeps, tokens=16)
    narrow = replace(
        AVX2,
        memory=tuple(replace(one, size=Fact(one.size.value / 16, "test")) for one in AVX2.memory),
    )
    before = None
    for tokens in (1, 2, 15, 16, 17, 100, 1000, 2000, 4000, 8000, 16000):
        found = product(size(tokens, rows=4096), tile).cost(narrow, CostOptions(tokens, cores=1))
        now = {level.name: found.moved(level.name) for level in narrow.memory}
        assert before is None or all(now[name] >= before[name] for name in now), tokens
        before = now
