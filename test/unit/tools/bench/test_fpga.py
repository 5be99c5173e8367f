"""`nybble bench fpga` on elements that are quickly built; resources are the model's here."""

from dataclasses import replace
from importlib.util import find_spec
from shutil import which

import numpy as np
import pytest

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.designs import Design
from nybble.backends.fpga.rtl.resource_model import predicted
from nybble.backends.fpga.rtl.simulate import Ran
from nybble.tools.bench import fpga
from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.fpga import FORMATS, FpgaOptions, bench_fpga, chosen


@pytest.fixture
def cache(tmp_path, monkeypatch):
    if find_spec("circt") is None or which("verilator") is None:
        pytest.skip("needs CIRCT and verilator")
    made: list[Design] = []

    def resources(design: Design, _cache: Cache):
        made.append(design)
        return predicted(replace(design, kind="planes") if design.kind == "multiply" else design)

    monkeypatch.setattr(fpga, "_resources", resources)
    return Cache(tmp_path / "cache")


def test_a_row_has_both_sides_and_the_cycles(cache):
    options = FpgaOptions(("w1.58",), n=700, tiles=3, lanes=2, rows=1)
    [row] = bench_fpga(options, cache, lambda _name: None).rows
    assert row["format"] == "w1.58"
    assert row["macs_per_cycle"] == 6
    assert row["dsps"] == 0
    assert row["lut_per_mac"] == row["luts"] / 6
    assert row["baseline_lut_per_mac"] == min(one["luts"] / 6 for one in row["baselines"].values())
    assert row["ideal_cycles"] == 2100
    assert 2100 <= row["rtl_cycles"] <= 1.01 * 2100


@pytest.mark.parametrize(("name", "kernel", "macs", "dsps"), [
    ("bitmod4", "serial", 8 * 16 * 4 / 2, 0),
    ("bip2a2", "xnor", 7 * 16 * 4, 0),
    ("2:4", "sparse", 64, 32),
    ("2:16", "sparse", 256, 128),
])  # fmt: skip
def test_what_an_element_is_compared_with_does_as_many_products(
    cache, monkeypatch, name, kernel, macs, dsps
):
    cycles = {"rtl_cycles": 1, "ideal_cycles": 1.0, "loading_cycles": 0}
    monkeypatch.setattr(fpga, "_cycles", lambda *_: cycles)
    [row] = bench_fpga(FpgaOptions((name,), n=64, tiles=1), cache, lambda _name: None).rows
    assert (row["kernel"], row["macs_per_cycle"]) == (kernel, macs)
    assert row["baseline_dsp_per_mac"] == dsps / macs
    best = min(one["luts"] for one in row["baselines"].values())
    assert row["baseline_lut_per_mac"] == best / macs


def test_elements_that_are_compared_have_as_many_products_a_cycle():
    spec = FpgaOptions().design("bitmod4").spec
    same = fpga.baseline_spec(spec, 4096)
    assert same.macs_per_cycle == spec.macs_per_cycle / spec.terms
    assert same.depth * same.rows >= 4096


def test_wrong_sums_end_the_measurement(cache, monkeypatch):
    monkeypatch.setattr(Design, "sums", lambda self, words, rows, *_: np.zeros((rows, 1), int))
    options = FpgaOptions(("w1.58",), n=8, tiles=1, lanes=2, rows=1, baseline=False)
    monkeypatch.setattr(fpga, "program", lambda *_: b"")
    monkeypatch.setattr(fpga, "run", lambda *_: [Ran(np.zeros((8, 1), np.uint32), 0, 0)])
    with pytest.raises(BenchError, match="gives wrong sums"):
        bench_fpga(options, cache, lambda _name: None)


def test_formats_by_name():
    assert chosen(("w2", "2:4")) == ("w2", "2:4")
    with pytest.raises(BenchError, match="unknown format 'w5'") as caught:
        chosen(("w5",))
    assert caught.value.accepted == ", ".join(FORMATS)
