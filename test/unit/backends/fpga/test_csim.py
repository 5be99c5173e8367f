"""Emitted C++ by C simulation: bit by bit what the references of the processes give."""

import numpy as np
import pytest
from test.unit.backends.fpga.families import (
    COUNTED,
    FAMILIES,
    PAIRED,
    check_cases,
    extreme_cases,
    make_all,
    random_cases,
)

from nybble.backends.fpga.analysis import analyse
from nybble.backends.fpga.csim import tools as csim_tools
from nybble.backends.fpga.csim.build import Case, build, compile_program, run_program
from nybble.backends.fpga.csim.tools import ToolError


@pytest.fixture(scope="module")
def families():
    return make_all(FAMILIES)


@pytest.fixture(scope="module")
def simulation(tools, families, tmp_path_factory):
    """With streams that count; `nybble verify` has the vendor's."""
    folder = tmp_path_factory.mktemp("csim")
    return build([one.kernel for one in families], folder, counts=True, many=False)


@pytest.mark.parametrize("index", range(len(FAMILIES)))
def test_results_are_those_of_the_references(index, families, simulation):
    check_cases(families[index], simulation, random_cases(families[index], index))


@pytest.mark.parametrize("index", PAIRED)
def test_two_products_of_extremes_do_not_disturb_each_other(index, families, simulation):
    check_cases(families[index], simulation, extreme_cases(families[index], index))


def test_wrong_weights_are_seen(families, simulation):
    made, random = families[0], np.random.default_rng(0)
    rows, cols, tokens = made.shape
    x = random.standard_normal((tokens, cols)).astype(np.float32)
    case = made.case(x, made.weight(random.standard_normal((rows, cols))))
    flipped = tuple(one.copy() for one in case.memories)
    flipped[1][0, 0] ^= 1
    (ran,) = simulation.run([Case(case.kernel, flipped)])
    assert not np.array_equal(ran.written[0], made.reference(case)[0])


@pytest.mark.parametrize("index", COUNTED)
def test_cycles_are_those_of_the_analysis(index, families, simulation):
    made = families[index]
    rows, cols, tokens = made.shape
    weight = made.weight(np.random.default_rng(0).standard_normal((rows, cols)))
    case = made.case(np.ones((tokens, cols), np.float32), weight)
    (ran,) = simulation.run([case])
    assert ran.cycles == pytest.approx(analyse(made.kernel).cycles, rel=0.02)


def test_undefined_behaviour_ends_a_program(tools, tmp_path, simulation):
    (tmp_path / "main.cpp").write_text("int main(int n, char**) { return n + 2147483647; }")
    program = compile_program(tmp_path / "main.cpp", tmp_path / "csim")
    broken = type(simulation)(program, ("k",), ((),))
    with pytest.raises(ToolError, match="signed integer overflow"):
        broken.run([Case("k", ())])


def test_what_gcc_refuses_is_told(tools, tmp_path):
    (tmp_path / "main.cpp").write_text("int main() { return x; }")
    with pytest.raises(ToolError, match=r"g\+\+ refuses main.cpp: "):
        compile_program(tmp_path / "main.cpp", tmp_path / "csim")


def test_what_does_not_end_is_told():
    with pytest.raises(ToolError, match=r"C simulation did not end within 0\.01 seconds"):
        run_program("C simulation", ["sleep", "9"], seconds=0.01)


def test_missing_tools_name_the_command(monkeypatch):
    csim_tools.headers.cache_clear()
    csim_tools.compiler.cache_clear()
    monkeypatch.setattr(csim_tools, "find_spec", lambda name: None)
    monkeypatch.setattr(csim_tools, "which", lambda name: None)
    with pytest.raises(ToolError, match="headers of hls4ml are not installed") as fault:
        csim_tools.headers()
    assert fault.value.accepted == "pip install --no-deps hls4ml==1.3.0"
    with pytest.raises(ToolError, match=r"g\+\+ is not installed") as fault:
        csim_tools.compiler()
    assert fault.value.accepted == "apt-get install g++"
