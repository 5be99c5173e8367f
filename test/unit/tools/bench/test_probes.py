"""The probes' code does what its rate is credited for."""

import numpy as np
import pytest

from nybble.backends.cpu.codegen import jit
from nybble.backends.cpu.isa import AVX512_VNNI, X86_64_V3
from nybble.tools.bench.probes.code import (
    READ_LANES,
    READS,
    read_module,
    tile_operations,
    vector_module,
)
from nybble.tools.bench.probes.probes import Probe, accumulators, peak_probes, rates, read_probes
from nybble.tools.bench.probes.team import Team


@pytest.fixture(scope="module")
def team():
    made = Team(2)
    yield made
    made.close()


@pytest.mark.parametrize("read", READS)
def test_reading_adds_up_its_range_each_pass(read):
    library = jit(read_module(read))
    memory = np.arange(1024, dtype=np.int32)
    sums = np.zeros(READ_LANES, np.int32)
    library.call(read.name, memory, sums, 64, 512 // read.streams, 3)
    assert sums.sum() == 3 * memory[64:576].sum()


def test_generic_accumulators_run_anywhere():
    f32, _int8 = accumulators(X86_64_V3)
    library = jit(vector_module(f32))
    room = np.zeros(64, np.float32)
    start = -room.ctypes.data % 32 // 4
    x = room[start : start + 8]
    x[:] = 0.5
    sums = np.zeros(8, np.float32)
    library.call("f32", x, x, sums, 10)
    assert sums.tolist() == [0.25 * 10 * f32.count] * 8
    assert f32.operations == 16


def test_vnni_is_credited_with_its_four_products():
    names = {probe.name: probe for probe in accumulators(AVX512_VNNI)}
    assert set(names) == {"f32", "int8"}
    assert names["int8"].operations == 2 * 64
    assert tile_operations("int8") == 2 * tile_operations("bf16") == 4 * 32768


def test_peaks_of_this_host(team):
    probes = peak_probes(team)
    assert probes[0].name == "f32"
    for probe in probes:
        assert probe.rate(probe.run()) > 0


def test_read_probes_count_the_bytes_of_all_threads(team):
    for probe in read_probes(team, "l2", 100_000):
        assert probe.name == "l2"
        assert probe.work % (2 * 512) == 0
        assert probe.rate(probe.run()) > 0


def test_the_fastest_probe_of_a_name_counts():
    probes = [Probe("l3", 10.0, float), Probe("l3", 10.0, float), Probe("f32", 3.0, float)]
    assert rates(probes, [2.0, 1.0, 1.0]) == {"l3": 10.0, "f32": 3.0}


def test_team_runs_every_index(team):
    seen = []
    assert team.seconds(seen.append) >= 0
    assert sorted(seen) == [0, 1]


def test_team_raises_what_its_work_raises(team):
    with pytest.raises(ZeroDivisionError):
        team.seconds(lambda index: 1 // 0 if index >= 0 else None)
