"""The schedule dialect: attributes only."""

from xdsl.ir import Dialect

from nybble.dialects.schedule.attrs import KernelSchedule

Schedule = Dialect("schedule", [], [KernelSchedule])
