"""Emitted C++ by C simulation: bit by bit what the references of the processes give."""

import numpy as np
import pytest

from nybble.backends.fpga.analysis import analyse
from nybble.backends.fpga.csim import tools as csim_tools
from nybble.backends.fpga.csim.build import Case, compile_program
from nybble.backends.fpga.csim.tools import ToolError

EACH = 60


def activation(kind, shape, random):
    """Rows of a kind that kernels go wrong at."""
    x = random.standard_normal(shape).astype(np.float32)
    if kind == "ends":
        return np.where(x > 0, np.float32(1), np.float32(-1))
    if kind == "denormal":
        return x * np.float32(1e-39)
    if kind == "not finite":
        x[0, -1] = random.choice([np.inf, -np.inf, np.nan])
    if kind == "zero":
        x[:] = 0
    return x


@pytest.mark.parametrize("index", range(6))
def test_results_are_those_of_the_references(index, families, simulation):
    made, random = families[index], np.random.default_rng(index)
    rows, cols, tokens = made.shape
    cases = []
    for number in range(EACH):
        kind = ("normal", "ends", "denormal", "not finite", "zero")[number % 5]
        values = random.standard_normal((rows, cols))
        if number % 3 == 0:
            values = np.where(values > 0, 1.0, -1.0)
        elif number % 3 == 1:
            values[random.random(rows) < 0.5] = 0
        x = activation(kind, (tokens, cols), random)
        cases.append(made.case(x, made.weight(values)))
    for case, ran in zip(cases, simulation.run(cases), strict=True):
        wanted, floats = made.reference(case)
        got = ran.written[0].view(np.float32)
        assert np.array_equal(got, wanted.view(np.float32), equal_nan=True), floats


def test_wrong_weights_are_seen(families, simulation):
    made, random = families[0], np.random.default_rng(0)
    rows, cols, tokens = made.shape
    x = random.standard_normal((tokens, cols)).astype(np.float32)
    case = made.case(x, made.weight(random.standard_normal((rows, cols))))
    flipped = tuple(one.copy() for one in case.memories)
    flipped[1][0, 0] ^= 1
    (ran,) = simulation.run([Case(case.kernel, flipped)])
    assert not np.array_equal(ran.written[0], made.reference(case)[0])


def test_cycles_are_those_of_the_analysis(families, counting):
    made = families[0]
    rows, cols, tokens = made.shape
    case = made.case(np.ones((tokens, cols), np.float32), made.weight(np.ones((rows, cols))))
    (ran,) = counting.run([case])
    assert np.array_equal(ran.written[0], made.reference(case)[0])
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
