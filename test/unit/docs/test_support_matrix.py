"""The support matrix of the documentation is what the code says, and what it says is true."""

from pathlib import Path

import numpy as np
import pytest

from nybble.backends.cpu.weights import dataflows
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.tools.diagnostics import Session
from nybble.tools.run_file import FileRun, run_file
from nybble.tools.verbs.formats import EXAMPLES, markdown

NAMES = (*formats.names(), *EXAMPLES)
PRODUCT = """
func.func @product(%x: tensor<?xCOLSxf32>, %w: !lowbit.tensor<70xCOLS, "FMT">) -> tensor<?x70xf32> {
  %y = mpgemm.matmul %x, %w
    : tensor<?xCOLSxf32>, !lowbit.tensor<70xCOLS, "FMT"> -> tensor<?x70xf32>
  func.return %y : tensor<?x70xf32>
}
"""


def test_table_is_up_to_date():
    page = (Path(__file__).parents[3] / "docs/support.md").read_text()
    begin, end = "<!-- formats: begin -->\n", "<!-- formats: end -->"
    assert page.split(begin)[1].split(end)[0] == markdown(), "run `nybble formats --markdown`"


def product(folder, name):
    columns = str(max(formats.get(name).block, 64) * 2)
    file = folder / "product.mlir"
    file.write_text(PRODUCT.replace("COLS", columns).replace("FMT", name))
    return file


def run(folder, name, tokens, activations):
    """What running a product of `tokens` rows reports."""
    asked = FileRun("product", tokens, 0, 7, 1, None, activations, rounds=1)
    return run_file(str(product(folder, name)), asked, Session("test"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_or_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv("NYBBLE_CACHE", str(tmp_path / "cache"))
    cells = dataflows(formats.get(name))
    if not cells:
        with pytest.raises(NybbleError, match=f"'{formats.get(name).spec}'"):
            run(tmp_path, name, 1, "i8")
        return
    for flow, tokens, activations, bound in (
        ("int_dot", 1, "i8", 1e-9),
        ("dequantize", 3, "f32", 1e-10),
    ):
        if flow in cells:
            (result,) = run(tmp_path, name, tokens, activations)["results"]
            assert result["nmse"] < bound
            assert np.isfinite(result["max_error"])
