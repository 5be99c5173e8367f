"""The support matrix of the documentation is what the code says, and what it says is true."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from nybble.backends.cpu.bindings.table import bind
from nybble.backends.cpu.dataflows import DATAFLOWS
from nybble.backends.cpu.isa import LEVELS, detect
from nybble.backends.cpu.machine import cpu_flags
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.lowbit import formats
from nybble.tools.verbs.formats import example_shape, markdown, rows
from nybble.tools.verify.batch import advanced, compiled, function_name
from nybble.tools.verify.cases import REFUSED, Case, Kernel
from nybble.tools.verify.data import make
from nybble.tools.verify.judge import judge

TABLE = rows()
HOST = detect(cpu_flags()).name
OTHERS = [level for level in LEVELS if level != HOST]
AT_ONCE = 8


def test_table_is_up_to_date():
    page = (Path(__file__).parents[3] / "docs/support.md").read_text()
    begin, end = "<!-- formats: begin -->\n", "<!-- formats: end -->"
    assert page.split(begin)[1].split(end)[0] == markdown(), "run `nybble formats --markdown`"


def kernel(row, flow):
    """A product of a cell with one token or many, in a mode that the dataflow serves."""
    cols = max(row.description.block, 64)
    tall, _ = example_shape(row.description)
    many = flow == "dequantize"
    return Kernel(row.name, tall, cols, many, flow, DATAFLOWS[flow].modes[0], "")


@pytest.mark.parametrize("level", LEVELS)
def test_every_cell_has_kernels_and_every_other_is_refused(level):
    for row in TABLE:
        for flow in DATAFLOWS:
            if flow in row.dataflows[level]:
                module = advanced([kernel(row, flow)], LEVELS[level], "scheduled")
                bound = [bind(op, LEVELS[level], 1) for op in module.walk() if is_kernel(op)]
                assert bound
            else:
                with pytest.raises(NybbleError, match=flow):
                    advanced([kernel(row, flow)], LEVELS[level], "scheduled")


def is_kernel(op):
    return isinstance(op, KernelOp)


@pytest.mark.parametrize("row", [row for row in TABLE if not row.dataflows[HOST]])
def test_a_format_without_a_cell_is_named_in_the_refusal(row):
    asked = Kernel(row.name, *example_shape(row.description), False, REFUSED, "i8", "")
    with pytest.raises(NybbleError, match=f"'{formats.get(row.name).spec}'"):
        advanced([asked], LEVELS[HOST], "fused")


def check(level, flow, table):
    """Run the kernels of some cells of a column; emulated where this machine lacks the level."""
    asked = [kernel(row, flow) for row in table if flow in row.dataflows[level]]
    for some in (asked[first : first + AT_ONCE] for first in range(0, len(asked), AT_ONCE)):
        batch = compiled(some, LEVELS[level])
        with closing(batch.executor):
            for index, one in enumerate(some):
                case = Case(index, one, 3 if one.many else 1, "normal")
                data, name = make(case, 0), function_name(index, one)
                pair = (batch.wanted(name, case, data), batch.found(name, case, data))
                verdict = judge(case, data, *(values.astype(np.float64) for values in pair))
                assert verdict.fault == "", one


@pytest.mark.slow
@pytest.mark.parametrize("flow", DATAFLOWS)
def test_every_cell_of_this_machine_runs(flow):
    check(HOST, flow, TABLE)


@pytest.mark.slow
@pytest.mark.parametrize("flow", DATAFLOWS)
@pytest.mark.parametrize("place", range(len(OTHERS)))
def test_cells_of_other_levels_run_emulated(flow, place):
    """Each format on one of the other levels, in turn."""
    check(OTHERS[place], flow, TABLE[place :: len(OTHERS)])
