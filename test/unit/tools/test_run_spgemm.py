"""`nybble run --target spgemm`: what is refused, and the plot of the model's phases."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import mmwrite
from scipy.sparse import coo_array

from nybble.backends.spgemm.run import ENGINES
from nybble.dialects.errors import NybbleError
from nybble.tools.diagnostics import UsageError
from nybble.tools.report.plots import phases
from nybble.tools.run_spgemm import SparseRun, run_spgemm
from nybble.tools.target import ChosenTarget
from nybble.tools.verify.spgemm import numbers_of

TARGET = ChosenTarget("spgemm", "piuma-like")


def test_the_phases_of_the_model_are_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    try:
        ENGINES["qemu"].check()
    except NybbleError as error:
        pytest.skip(str(error))
    matrix, plot = tmp_path / "a.mtx", tmp_path / "phases.svg"
    mmwrite(matrix, coo_array(np.eye(12)))
    asked = SparseRun(str(matrix), str(matrix), TARGET, "v2", harts=4, plot=str(plot))
    found = run_spgemm(asked)
    assert found["products"] == 12
    text = plot.read_text()
    assert text.lstrip().startswith("<svg")
    assert all(name in text for name in ("clear", "products", "writeback", "thousand cycles"))


def test_a_phase_is_as_wide_as_it_is_long() -> None:
    pytest.importorskip("matplotlib")
    one = {"cycles": 0.99, "ipc": 2.0, "dram_utilisation": 0.5}
    text = phases({"long": one, "short": {**one, "cycles": 0.01}}, 5000.0, 4.0)
    assert "long" in text
    assert "short" not in text


def test_a_simulator_has_no_phases_to_plot() -> None:
    asked = SparseRun("a.mtx", "a.mtx", TARGET, engine="qemu", plot="phases.svg")
    with pytest.raises(UsageError, match="--plot with engine 'qemu'"):
        run_spgemm(asked)


@pytest.mark.parametrize("text", ["0", "65", "4,x", "4,,8", "-1"])
def test_wrong_numbers_of_harts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--harts"):
        numbers_of(text)


def test_numbers_of_harts() -> None:
    assert numbers_of(None) == ()
    assert numbers_of("1,64") == (1, 64)
