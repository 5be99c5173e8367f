"""Resources: a small element by Yosys, what is counted, and the model against what was recorded."""

import pytest

from nybble.backends.fpga.rtl import synthesis
from nybble.backends.fpga.rtl.designs import Design
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.resource_model import predicted, recorded
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.synthesis import Resources, counted, synthesized
from nybble.dialects.lowbit.formats.element import Uniform

PARTS = ("fit", "held_out")
SMALL = Design("table", PeSpec(Uniform(2, 2), lanes=2, rows=2, depth=512))


def test_a_small_element_is_synthesized_once(circuits, monkeypatch):
    pytest.importorskip("pyosys", reason="needs pyosys: pip install 'nybble[fpga]'")
    found = synthesized(SMALL.verilog, SMALL.top, circuits)
    assert found.dsps == 0
    assert found.brams == 2  # 512 sums of two rows
    model = predicted(SMALL)
    assert model.luts == pytest.approx(found.luts, rel=0.1)
    assert model.registers == pytest.approx(found.registers, rel=0.1)
    monkeypatch.setattr(synthesis, "_run", None)
    assert synthesized(SMALL.verilog, SMALL.top, circuits) == found


def test_what_yosys_says_is_told(circuits, monkeypatch):
    pytest.importorskip("pyosys", reason="needs pyosys: pip install 'nybble[fpga]'")
    with pytest.raises(RtlError, match=r"Yosys cannot synthesize 'm': .*syntax error"):
        synthesized("module m(; endmodule", "m", circuits)
    monkeypatch.setattr(synthesis, "find_spec", lambda _name: None)
    with pytest.raises(RtlError, match="pyosys is not installed"):
        synthesized("", "m", circuits)


def test_cells_are_counted_by_their_luts():
    cells = {"LUT6": 3, "INV": 1, "RAM32M16": 2, "FDRE": 9, "CARRY4": 8, "RAMB36E2": 1, "row": 2}
    assert counted(cells, "module row(\n") == Resources(20, 16, 9, 0, 2)
    with pytest.raises(RtlError, match="not counted: LDCE"):
        counted({"LDCE": 1}, "")


def test_multipliers_left_to_synthesis_are_not_modelled():
    with pytest.raises(RtlError, match="left to synthesis"):
        predicted(Design("multiply", SMALL.spec))


@pytest.mark.parametrize("one", recorded(), ids=lambda one: f"{one.part}-{one.design.top}")
def test_the_model_is_within_a_tenth_of_what_yosys_counted(one):
    model, found = predicted(one.design).as_json(), one.resources.as_json()
    for name, count in found.items():
        assert model[name] == pytest.approx(count, rel=0.1), name


def test_designs_that_nothing_was_fitted_to_are_recorded():
    tops = {part: {one.design.top for one in recorded() if one.part == part} for part in PARTS}
    assert len(tops["held_out"]) >= 5
    assert not tops["fit"] & tops["held_out"]
