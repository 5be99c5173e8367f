"""What is written beside the C++: a script, a host program, channels."""

import subprocess

import pytest
from test.unit.backends.fpga.conftest import make

from nybble.backends.fpga.analysis import FIRST, RULES
from nybble.backends.fpga.csim.tools import compiler, headers
from nybble.backends.fpga.hls.emit import CONTEXTS, emit
from nybble.backends.fpga.hls.project import FILES, PARTS, project
from nybble.costmodel.targets.reader import find_target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.dialect import Fpga
from nybble.dialects.fpga.processes import ProcessOp


def test_every_process_has_a_template_and_a_cost():
    processes = {op for op in Fpga.operations if issubclass(op, ProcessOp)}
    assert processes == set(CONTEXTS) == set(RULES) == set(FIRST)


def test_files_of_two_kernels():
    kernels = [make("lut_array", "w2g32", 7, 64, 1, name=name).kernel for name in ("a", "b")]
    files = project(kernels, find_target("u280"))
    assert set(files) == {*FILES, "a.cpp", "a.h", "b.cpp", "b.h", "nybble_hls.h"}
    assert "foreach name { a b }" in files["run_hls.tcl"]
    assert "set_part xcu280-fsvh2892-2L-e" in files["run_hls.tcl"]
    assert "create_clock -period 4.444" in files["run_hls.tcl"]
    assert "sp=b_1.x:HBM[4]" in files["connectivity.cfg"]
    assert '{"y", 32, false, true}' in files["host.cpp"]
    for name in FILES:
        assert "Not run" in files[name], name


@pytest.mark.parametrize("name", PARTS)
def test_every_device_has_a_part_and_channels(name):
    text = project([make("lut_array", "w1", 4, 64, 1).kernel], find_target(name))
    assert PARTS[name] in text["run_hls.tcl"]
    assert "sp=k_1.x:" in text["connectivity.cfg"]


def test_a_device_without_a_part_is_refused():
    with pytest.raises(NybbleError, match="no part is known of 'h100'"):
        project([], find_target("h100"))


def test_pragmas_say_what_the_tool_is_to_do():
    text = emit(make("lut_array", "w2g32", 7, 64, 1).kernel)["k.cpp"]
    for pragma in (
        "HLS DATAFLOW",
        "HLS PIPELINE II=1",
        "HLS UNROLL",
        "HLS ARRAY_PARTITION variable=held complete dim=1",
        "HLS BIND_STORAGE variable=held type=ram_2p impl=lutram",
        "HLS INTERFACE m_axi port=x offset=slave bundle=x depth=4",
        "HLS INTERFACE s_axilite port=return",
        "HLS STREAM variable=s2_weights depth=32",
    ):
        assert f"#pragma {pragma}" in text, pragma


def test_the_vendors_tool_reads_older_cpp(tools, tmp_path):
    """Vitis HLS takes C++14; the simulation's newer one is for its sanitizer."""
    for name, text in emit(
        make("sparse_chain", "i4:g=32:s=f32:sparse=2of4", 2, 32, 2).kernel
    ).items():
        (tmp_path / name).write_text(text)
    flags = ["-std=c++14", "-fsyntax-only", "-w", "-isystem", headers()]
    done = subprocess.run(
        [compiler(), *flags, tmp_path / "k.cpp"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
