"""What tests of processing elements share: the tools, or a reason to skip, and a cache."""

from importlib.util import find_spec
from shutil import which

import pytest

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.designs import Design
from nybble.backends.fpga.rtl.resource_model import recorded
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.dialects.lowbit import formats


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


@pytest.fixture(scope="session")
def recorded_designs():
    """The designs of `recorded.json` by the name of their top."""
    return {str(row["top"]): design_of(row) for row in recorded()}


def design_of(row):
    spec = dict(row["spec"])
    if row["kind"] == "sparse":
        return Design("sparse", SparseSpec(**spec))
    element = formats.get(f"{spec.pop('element')}:g=32:s=f16").element
    return Design(row["kind"], PeSpec(element, **spec))
