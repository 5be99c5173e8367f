"""Target files: those that come with nybble load whole, and a wrong one is refused by its key."""

from importlib.resources import files

import pytest
import yaml

from nybble.backends.cpu.isa import LEVELS
from nybble.backends.gpu.arch import ARCHS
from nybble.costmodel.targets.reader import (
    TARGETS,
    find_target,
    read_target,
    target_for_level,
)
from nybble.costmodel.targets.target import KINDS, RESOURCES, ResourceError
from nybble.dialects.errors import UnknownNameError

FOLDER = files("nybble.costmodel.targets")
TEXT = FOLDER.joinpath(TARGETS["h100"]).read_text()
FPGA = FOLDER.joinpath(TARGETS["u280"]).read_text()
FPGAS = ("u280", "vhk158", "u55c", "v80", "zcu104", "kv260")


def facts(found):
    """Every number with a source in loaded YAML."""
    if isinstance(found, dict):
        if "value" in found:
            yield found
        for value in found.values():
            yield from facts(value)
    elif isinstance(found, list):
        for value in found:
            yield from facts(value)


def test_every_file_is_a_row_and_says_where_its_numbers_are_from():
    shipped = {path.name for path in FOLDER.iterdir() if path.name.endswith(".yaml")}
    assert shipped == set(TARGETS.values())
    for name, file in TARGETS.items():
        target = find_target(name)
        assert target.name == name
        assert target.main.size.value > target.memory[0].size.value
        found = list(facts(yaml.safe_load(FOLDER.joinpath(file).read_text())))
        assert len(found) >= 12
        assert all(len(one["source"]) > 5 for one in found)


def test_every_level_of_the_cpu_has_a_target_that_knows_all_its_kinds():
    wanted = set(KINDS) - {"f16", "i4"}  # which no kernel of the CPU computes in
    for level in LEVELS:
        assert wanted <= set(target_for_level(level).rates)
    assert {target_for_level(arch).name for arch in ARCHS} == {"a100", "h100"}
    with pytest.raises(UnknownNameError, match=r"level 'z80' \(accepted: x86-64-v2, "):
        target_for_level("z80")


def test_quantities_with_and_without_units():
    target = find_target("h100")
    assert target.main.total.value == pytest.approx(3.35e12)
    assert target.memory[0].size.value == 228 * 1024
    assert target.rates["f16"].core.value * 132 == pytest.approx(989.4e12)
    assert target.launch.value == pytest.approx(2.5e-6)
    assert target.memory[1].core.value * 132 == pytest.approx(9.4e12)
    plain = read_target(TEXT.replace("228 KiB, source", "233472, source"), "plain")
    assert plain.memory[0].size.value == 228 * 1024


@pytest.mark.parametrize("name", FPGAS)
def test_an_fpga_says_its_resources_clock_and_channels(name):
    target = find_target(name)
    assert set(target.resources) == set(RESOURCES)
    assert target.resource("ff").value == 2 * target.resource("lut").value
    blocks = 36 * 1024 * target.resource("bram").value + 288 * 1024 * target.resource("uram").value
    assert target.memory[0].size.value == pytest.approx(blocks / 8, rel=0.15)
    assert target.clock is not None
    assert 100e6 <= target.clock.value <= 400e6
    assert target.main.channels is not None
    assert 10e9 <= target.main.total.value / target.main.channels.value <= 26e9


def test_what_is_no_fpga_has_no_resources():
    target = find_target("h100")
    assert not target.resources
    assert target.clock is None
    assert target.main.channels is None
    with pytest.raises(ResourceError, match=r"'h100' does not say how many 'lut' .*an FPGA"):
        target.resource("lut")
    few = read_target(FPGA.replace("  uram:", "  #", 1), "few")
    with pytest.raises(ResourceError, match=r"'uram' it has \(accepted: lut, ff, dsp, bram, or a"):
        few.resource("uram")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  dsp: {", "  dps: {", r"resources.dps: unknown key \(accepted: lut, ff, dsp, bram"),
        ("value: 9024", "value: 9024 OP", "resources.dsp.value: '9024 OP' is no number of count"),
        (
            "clock: {value: 225 MHz",
            "clock: {value: 225 m",
            "clock.value: '225 m' is no number of h",
        ),
        ("channels: {value: 32", "channels: {value: 0", r"memory\[1\].channels.value: 0 is not ab"),
    ],
)
def test_a_wrong_fpga_is_refused_by_its_key(old, new, message):
    assert old in FPGA
    with pytest.raises(Exception, match=message):
        read_target(FPGA.replace(old, new, 1), "broken")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: h100", "", r"name: missing \(accepted: the keys name, "),
        ("name: h100", "name: h100\ncolour: red", "colour: unknown key"),
        ("name: h100", "name: ''", "name: expected text, got ''"),
        (
            "3.35 TB/s",
            "3.35 furlongs",
            r"memory\[2\].total.value: '3.35 furlongs' is no number of b",
        ),
        ("3.35 TB/s", "-3", "memory.2..total.value: -3 is no number"),
        ("3.35 TB/s", "0", "memory.2..total.value: 0 is not above 0"),
        ("50 MiB", "true", r"memory\[1\].size.value: True is no number of bytes"),
        (
            "shared: false",
            "shared: maybe",
            r"memory\[0\].shared: expected true or false, got 'maybe'",
        ),
        ("name: l2", "name: shared", r"memory\[1\].name: 'shared' is there twice"),
        ("  f32:\n", "  f31:\n", "rates.f31: unknown kind of operation"),
        ("coded: f16", "coded: i4", r"arithmetic.coded: unknown 'i4' \(accepted: f32, f16, "),
        ("tensors: f16", "tensors: i8", "arithmetic.tensors: unknown 'i8'"),
        ("tokens: 128", "tokens: 0", "tile.tokens: expected a whole number, got 0"),
        ("keeps: false", "keeps: 1", "tile.keeps: expected true or false, got 1"),
        ("total: {value: 66.9", "whole: {value: 66.9", "rates.f32.whole: unknown key"),
        ("launch: {value: 2.5 us, ", "launch: {", "launch.value: missing"),
        ("name: h100", "name: h100\nname: b", "1: key 'name' is there twice"),
        ("name: h100", "name: [", "broken:"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(old, new, message):
    assert old in TEXT
    with pytest.raises(Exception, match=message) as raised:
        read_target(TEXT.replace(old, new, 1), "broken")
    assert type(raised.value).__name__ == "TargetFileError"
    assert "broken" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no mapping"),
        ("- a", "holds no mapping"),
        (TEXT.partition("memory:")[0] + "memory: []\n", "memory"),
        (TEXT.replace("memory:", "memory: 3\nleft:"), "left: unknown key"),
        (TEXT.replace("name: hbm\n    shared: true", "name: hbm\n    shared: false"), "last level"),
        (
            TEXT.replace("    total: {value: 66.9 TFLOP/s, source: NVIDIA H100 whitepaper}\n", ""),
            "f32",
        ),
        (TEXT.replace("[sm_90a, sm_90a+lmma, sm_120a]", "[1]"), "levels: expected a list of texts"),
    ],
)
def test_a_file_of_another_form_is_refused(text, message):
    with pytest.raises(Exception, match=message) as raised:
        read_target(text, "broken")
    assert type(raised.value).__name__ == "TargetFileError"


def test_names_and_paths(tmp_path):
    with pytest.raises(UnknownNameError, match=r"unknown target 'h10' \(accepted: cpu-sse4, "):
        find_target("h10")
    with pytest.raises(Exception, match=r"cannot read .*No such file"):
        find_target(str(tmp_path / "none.yaml"))
    own = tmp_path / "own.yaml"
    own.write_text(TEXT.replace("name: h100", "name: own"))
    assert find_target(str(own)).name == "own"
    own.write_text(TEXT + "#" * (1 << 20))
    with pytest.raises(Exception, match=r"bytes \(accepted: up to 1048576"):
        find_target(str(own))
