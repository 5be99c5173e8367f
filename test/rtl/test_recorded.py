"""Every recorded synthesis once more: minutes each, so only `make test-rtl` runs this."""

import pytest

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.resource_model import recorded
from nybble.backends.fpga.rtl.synthesis import synthesized


@pytest.mark.parametrize("one", recorded(), ids=lambda one: one.design.top)
def test_yosys_counts_what_was_recorded(one, tmp_path):
    design = one.design
    found = synthesized(design.verilog, design.top, Cache(tmp_path / "cache"), design.options)
    recorded_before = one.resources.as_json()
    for name, count in found.as_json().items():
        assert count == pytest.approx(recorded_before[name], rel=0.002), name
