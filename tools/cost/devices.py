"""`nybble cost collect --ray`: loads measured on the devices of a cluster, logged here."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from nybble.backends.llvm.workers import close_idle
from nybble.costmodel.data.log import Log
from nybble.costmodel.data.measurement import Measurement
from nybble.tools.cost.collect import Collection, Plan
from nybble.tools.cost.fan_out import FanOut
from nybble.tools.cost.measuring import Measurer
from nybble.tools.cost.workloads import Load


class MeasureLoad:
    """Measures one load in a log of its own, which it hands over."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, load: Load) -> list[Measurement]:
        with TemporaryDirectory() as folder, Log(Path(folder) / "log.db") as log:
            with Measurer() as measurer:
                Collection(log, self.plan, lambda _status: None).run(iter([load]), measurer)
            close_idle()
            return [*log.measurements()]


def collect_on_devices(log: Log, plan: Plan, address: str, loads: Iterator[Load]) -> int:
    """Measure loads until the budget is over; how many measurements were new."""
    end, added = time.monotonic() + plan.seconds, 0

    def collected(found: list[Measurement]) -> bool:
        nonlocal added
        added += log.add(found)
        return time.monotonic() < end

    FanOut(address).run(loads, MeasureLoad(plan), collected)
    return added
