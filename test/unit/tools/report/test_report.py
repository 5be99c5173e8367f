"""The HTML page: what it shows of a folder, and what it says of one that it cannot read."""

import json
import re
from html.parser import HTMLParser

import pytest

from nybble.frontend.compile_model import CompileOptions
from nybble.tools.mlir_file import advance
from nybble.tools.report.points import Measured, agreement
from nybble.tools.shape_graph import shape_module
from nybble.tools.shape_model import SHAPES

pytest.importorskip("matplotlib", reason="plots are drawn by the extra 'cost'")

ROW = {
    "format": "q4_0",
    "rows": 64,
    "cols": 64,
    "n": 1,
    "cache": "hot",
    "threads": 1,
    "activations": "i8-only",
    "ours_us": 3.0,
}
CIRCUIT = {
    "kernel": "table",
    "format": "w2",
    "macs_per_cycle": 448,
    "luts": 3902,
    "dsps": 0,
    "baseline": "planes",
    "baselines": {"planes": {"luts": 12000, "dsps": 0}},
    "rtl_cycles": 1250,
    "ideal_cycles": 1000.0,
}
SPARSE = CIRCUIT | {"kernel": "sparse", "format": "2:4", "dsps": 16, "baseline": None}


@pytest.fixture
def folder(tmp_path, run_nybble):
    """A folder with the stages of a model, a report of another one and measurements."""
    made = tmp_path / "<made>"
    made.mkdir()
    module = shape_module(SHAPES["smollm2-135m"], "q4_0", 64, "f16")
    options = CompileOptions(context=64, threads=1)
    (made / "operators.mlir").write_text(str(module))
    advance(module, "operators", "scheduled", options)
    (made / "scheduled.mlir").write_text(str(module))
    asked = ("explain", "llama-3-8b", "--target", "h100", "--context", "32", "--json")
    assert run_nybble(*asked, str(made / "h100.json")).code == 0
    rows = [ROW, ROW | {"n": 4, "cache": "cold", "ours_us": 9.0}, ROW | {"ours_us": None}]
    (made / "bench.json").write_text(json.dumps({"kind": "kernels", "rows": rows}))
    circuits = [CIRCUIT, SPARSE, {"format": "w3"}]
    (made / "circuits.json").write_text(json.dumps({"kind": "fpga", "rows": circuits}))
    (made / "other.json").write_text("[]")
    return made


class Page(HTMLParser):
    """The tags that are open, the anchors, and everything that a page would fetch."""

    VOID = ("meta", "br", "path", "use", "rect", "line", "circle", "image")

    def __init__(self, text):
        super().__init__()
        self.open, self.anchors, self.fetched, self.texts = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.anchors.add(given.get("id"))
        links = (given.get(name) for name in ("src", "href", "xlink:href"))
        self.fetched += [one for one in links if one and not one.startswith("#")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_shows_all_that_the_folder_holds(folder, run_nybble):
    outcome = run_nybble("report", str(folder), "--isa", "x86-64-v3")
    assert outcome.out == f"{folder / 'report.html'}\n"
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "url(http" not in text
    assert {"model-1", "roofline", "decisions", "measured", "stages", "left-out"} <= page.anchors
    assert "circuits" in page.anchors
    assert text.count("<svg") == 5  # two phases, the roofline, the measurements, the circuits
    said = re.sub(r"\s+", " ", " ".join(page.texts))
    assert "llama-3-8b on h100" in said
    assert "Kernels on the roofline of cpu-avx2" in said
    assert "analytic: product_glu" in said
    assert "estimated cycles: int_dot" in said
    assert "2 products." in said
    assert "q4_0 64x64, n=4, cold, i8-only, 1 thread(s)" in said
    assert "other.json: no report of" in said
    assert "a row without a time or a key" in said
    assert "2:4 (16 DSP)" in said
    assert "table w2 358.4 3902 0 10.9 multiplying w2 448.0 12000 0 26.8" in said
    assert "a row of an element without an entry: KeyError('macs_per_cycle')" in said
    assert "<made>" in said
    assert "<made>" not in text
    first = text
    run_nybble("report", str(folder), "--isa", "x86-64-v3")
    assert (folder / "report.html").read_text() == first


def test_another_target_and_another_file(folder, run_nybble):
    outcome = run_nybble("report", str(folder), "--target", "cpu-avx512", "-o", "-")
    assert "Kernels on the roofline of cpu-avx512" in outcome.out
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds nothing to report on"),
        ({"a.json": "{"}, "a.json is no JSON"),
        ({"a.json": '{"prefill": {}, "decode": {}}'}, "lacks something: KeyError"),
        ({"fused.mlir": "func.func"}, "fused.mlir:1:"),
    ],
)
def test_folders_that_cannot_be_shown(files, message, tmp_path, run_nybble):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    outcome = run_nybble("report", str(tmp_path))
    assert (outcome.code, message in outcome.err) == (1, True), outcome.err


def test_a_folder_that_is_none(tmp_path, run_nybble):
    outcome = run_nybble("report", str(tmp_path / "none"))
    assert (outcome.code, "is no directory" in outcome.err) == (1, True)
    assert "unknown target 'x'" in run_nybble("report", str(tmp_path), "--target", "x").err


def test_agreement():
    exact = [Measured("", "", float(n), 2.0 * n) for n in (1, 2, 3)]
    found = agreement(exact)
    assert (found.count, found.order) == (3, 1.0)
    assert found.ratio == pytest.approx(2.0)
    assert found.error == pytest.approx(1.0)
    swapped = [Measured("", "", 1.0, 2.0), Measured("", "", 2.0, 1.0)]
    assert agreement(swapped).order == -1.0
    assert agreement(swapped).error == pytest.approx(2.0)
