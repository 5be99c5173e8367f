"""What a collection's measurements hold for."""

import pytest

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.machine import native
from nybble.costmodel.data.log import Log
from nybble.tools.cost.collect import Collection, Plan, stand
from nybble.tools.cost.kernel_workloads import kernels
from nybble.tools.cost.measuring import Measurer
from nybble.tools.diagnostics import UsageError
from nybble.tools.verbs.cost import standing_for

OLD = levels.get("x86-64-v2")


@pytest.mark.skipif(not native().triple.startswith("x86_64"), reason="no x86-64 here")
def test_code_of_a_lower_level_stands_for_another_machine(tmp_path):
    plan = Plan(60.0, rounds=2, machine=standing_for(OLD))
    load = next(one for one in kernels(0, OLD, 2) if one.family != "attention")
    with Log(tmp_path / "log.db") as log, Measurer() as measurer:
        Collection(log, plan, lambda _status: None).run(iter([load]), measurer)
        found = [*log.measurements()]
    assert found
    assert all(one.failure is None and one.seconds > 0 for one in found)
    assert {one.stand for one in found} == {stand(plan.machine)} != {stand()}
    assert "x86-64-v2" in found[0].stand.target


def test_a_machine_stands_only_for_what_it_runs():
    foreign = "x86-64-v2" if native().architecture == "aarch64" else "aarch64-neon"
    with pytest.raises(UsageError, match=f"level '{foreign}'"):
        standing_for(levels.get(foreign))
