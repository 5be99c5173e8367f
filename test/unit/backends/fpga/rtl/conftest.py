"""What tests of processing elements share: the tools, or a reason to skip, and a cache."""

from importlib.util import find_spec
from shutil import which

import pytest

from nybble.backends.cache import Cache


@pytest.fixture(scope="session")
def circuits(tmp_path_factory):
    if find_spec("circt") is None:
        pytest.skip("needs CIRCT: pip install 'nybble[fpga]'")
    return Cache(tmp_path_factory.mktemp("circuits") / "cache")


@pytest.fixture(scope="session")
def simulators(circuits):
    if which("verilator") is None:
        pytest.skip("needs verilator: apt-get install verilator")
    return circuits
