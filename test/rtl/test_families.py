"""Kernels of every kind of element by C simulation: many to compile, so only in `make test-rtl`."""

import pytest
from test.unit.backends.fpga.conftest import need_tools
from test.unit.backends.fpga.families import (
    MORE,
    MORE_PAIRED,
    check_cases,
    extreme_cases,
    make_all,
    random_cases,
)

from nybble.backends.fpga.csim.build import build


@pytest.fixture(scope="module")
def families():
    return make_all(MORE)


@pytest.fixture(scope="module")
def simulation(families, tmp_path_factory):
    need_tools()
    return build([one.kernel for one in families], tmp_path_factory.mktemp("csim"))


@pytest.mark.parametrize("index", range(len(MORE)))
def test_results_are_those_of_the_references(index, families, simulation):
    check_cases(families[index], simulation, random_cases(families[index], index))


@pytest.mark.parametrize("index", MORE_PAIRED)
def test_two_products_of_extremes_do_not_disturb_each_other(index, families, simulation):
    check_cases(families[index], simulation, extreme_cases(families[index], index))
