"""Every recorded synthesis once more: minutes each, so only `make test-rtl` runs this."""

import pytest

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.designs import Design
from nybble.backends.fpga.rtl.resource_model import recorded
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.synthesis import synthesized
from nybble.dialects.lowbit import formats


def design_of(row):
    spec = dict(row["spec"])
    if row["kind"] == "sparse":
        return Design("sparse", SparseSpec(**spec))
    element = formats.get(f"{spec.pop('element')}:g=32:s=f16").element
    return Design(row["kind"], PeSpec(element, **spec))


@pytest.mark.parametrize("row", recorded(), ids=lambda row: str(row["top"]))
def test_yosys_counts_what_was_recorded(row, tmp_path):
    design = design_of(row)
    found = synthesized(design.verilog, design.top, Cache(tmp_path / "cache"), design.options)
    for name, count in found.as_json().items():
        assert count == pytest.approx(row[name], rel=0.002), name
