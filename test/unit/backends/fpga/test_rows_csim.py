"""Emitted C++ of operators on rows: bit by bit what the references give, no FIFO too shallow."""

import numpy as np
import pytest
from test.unit.backends.fpga import launches
from test.unit.backends.fpga.launches import Launch
from xdsl.rewriter import Rewriter

from nybble.backends.fpga.analysis import analyse
from nybble.backends.fpga.csim.build import build
from nybble.backends.fpga.csim.tools import ToolError
from nybble.dialects.fpga.rows import ForkOp, stream_type

LAUNCHES = {
    one.name: one
    for one in (
        Launch(launches.block(), "block"),
        Launch(launches.turn(2, 2, 4), "turn", lanes=2),
        Launch(launches.append(2, 4, 6), "append"),
        Launch(launches.softmax(3, 40), "softmax", lanes=2),
        Launch(launches.attention(2, 1, 4, 6, mask="sink(1)+window(2)"), "window", lanes=4),
        Launch(launches.residual(40), "residual", lanes=2),
        Launch(launches.residual(40), "shallow", lanes=2),
        Launch(launches.projection(136, "w1"), "bits", lanes=8, activations="b1-token"),
    )
}


@pytest.fixture(scope="module")
def program(tools, tmp_path_factory):
    shallow = LAUNCHES["shallow"].network.kernel
    for fork in [op for op in shallow.processes if isinstance(op, ForkOp)]:
        for copy in fork.copies:
            Rewriter.replace_value_with_new_type(copy, stream_type(copy).with_depth(4))
    kernels = [one.network.kernel for one in LAUNCHES.values()]
    folder = tmp_path_factory.mktemp("rows")
    return build(kernels, folder, counts=True, many=False)


@pytest.mark.parametrize(
    "name", ["block", "turn", "append", "softmax", "window", "residual", "bits"]
)
def test_results_are_those_of_the_references(program, name):
    launch, random = LAUNCHES[name], np.random.default_rng(0)
    asked = [
        launch.values(random, position, scale)
        for position in (0, 3, 5)
        for scale in (0.0, 1.0, 1e-3, 1e4)
    ]
    ran = program.run([launch.case(values) for values in asked])
    for values, one in zip(asked, ran, strict=True):
        found = launch.network.results(one.written)
        for got, wanted in zip(found, launch.reference(values), strict=True):
            assert np.array_equal(got, wanted, equal_nan=True)


def test_a_fifo_that_is_too_shallow_is_a_deadlock(program):
    launch = LAUNCHES["shallow"]
    case = launch.case(launch.values(np.random.default_rng(0)))
    with pytest.raises(ToolError, match=r"deadlock: .*fork_1 writes 's\d+_x', which holds 4"):
        program.run([case])


@pytest.mark.parametrize("name", ["block", "residual"])
def test_cycles_are_near_those_of_the_analysis(program, name):
    """Of a full cache; processes of a chain wait for each other, which the analysis sums up."""
    launch = LAUNCHES[name]
    (ran,) = program.run([launch.case(launch.values(np.random.default_rng(0), 5))])
    assert ran.cycles == pytest.approx(analyse(launch.network.kernel).cycles, rel=0.15)
