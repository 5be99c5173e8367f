"""Accelerators and prices as data: every number has a source, and each device has room for it."""

from dataclasses import replace
from importlib.resources import files

import pytest
import yaml

from nybble.backends.fpga.isa.energy import FILE as PRICES
from nybble.backends.fpga.isa.energy import energy, prices
from nybble.backends.fpga.isa.machine import NUMBERS, check_resources, find_machine, machines
from nybble.backends.fpga.isa.timing import Timing
from nybble.costmodel.targets.nodes import TargetFileError
from nybble.costmodel.targets.target import ResourceError
from nybble.dialects.errors import UnknownNameError

NAMES = ("vhk158", "v80", "u280", "u55c", "zcu104", "kv260")


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_fits_its_device_and_says_where_its_numbers_are_from(name):
    machine = find_machine(name)
    assert set(machine.facts) == set(NUMBERS)
    assert all(len(one.source) >= 7 for one in machine.facts.values())
    assert machine.target.name == name
    check_resources(machine)
    channels = machine.target.main.channels
    assert channels is not None
    assert machine.regions * machine.channels <= channels.value
    assert machine.matrix_tokens % 16 == 0
    assert machine.matrix_tokens & (machine.matrix_tokens - 1) == 0
    assert prices(machine.target.main.name, name).static_watts > 0


def test_machines_are_those_that_can_be_named():
    assert set(machines()) == set(NAMES)
    with pytest.raises(UnknownNameError, match=r"for 'h100' \(accepted: vhk158, v80"):
        find_machine("h100")


def test_an_accelerator_that_is_too_big_is_refused_by_how_much():
    machine = find_machine("kv260")
    with pytest.raises(ResourceError, match=r"2048 'dsp' of kv260, 800 too many .accepted: up to "):
        check_resources(replace(machine, vector_rows=256))
    with pytest.raises(ResourceError, match=r"takes [0-9]+ 'uram' of kv260, [0-9]+ too many"):
        check_resources(replace(machine, values=1 << 24))


def test_prices_have_sources_and_add_up():
    machine = find_machine("vhk158")
    loaded = yaml.safe_load(files("nybble.backends.fpga.isa").joinpath(PRICES).read_text())
    flat = [*loaded["memory_byte"].values(), *loaded["static_watts"].values()]
    flat += [loaded[name] for name in ("product", "element", "on_chip_byte", "shared_byte")]
    assert all(len(one["source"]) > 6 for one in flat)
    spent = energy(machine, Timing(2.0, {}, 10**9, 0, 0, 10**12, 0))
    price = prices("hbm", "vhk158")
    assert spent["products"] == pytest.approx(10**12 * price.product)
    assert spent["memory"] == pytest.approx(10**9 * price.memory_byte)
    assert spent["static"] == pytest.approx(2 * price.static_watts)
    with pytest.raises(TargetFileError, match=r"energy.yaml: memory_byte.lpddr5"):
        prices("lpddr5", "vhk158")
