"""Mutated MLIR text: whatever comes in, nybble-opt prints a module or one located diagnostic."""

import gc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nybble.dialects.errors import NybbleError
from nybble.tools.diagnostics import MAX_LINES, Session
from nybble.tools.opt_options import OptOptions
from nybble.tools.opt_run import Steps, transform

OPTIONS = OptOptions(
    file="-",
    passes="",
    from_stage=None,
    to_stage=None,
    output="-",
    split_input_file=False,
    verify_diagnostics=False,
    allow_unregistered_dialect=True,
    mlir_print_op_generic=False,
    mlir_print_debuginfo=False,
    mlir_print_ir_after_all=False,
    mlir_print_ir_after_change=False,
    mlir_timing=False,
    crash_reproducer=None,
    run_reproducer=False,
    time_limit=2.0,
    list_passes=False,
)


def seeds():
    """The parts of all lit tests, which between them use every operation of ours."""
    folder = Path(__file__).parents[1] / "filecheck"
    files = sorted(folder.rglob("*.mlir"))
    parts = [part for file in files for part in file.read_text().split("// -----")]
    return [part for part in parts if 0 < len(part) < 3000]


SEEDS = seeds()
FRAGMENTS = [*'()[]{}<>"%#!@,:=->', "->", "^bb0", "\\", "//", "\n", "\x00", "é", "i", "x", "f32"]
NUMBERS = ["0", "-1", "9" * 25, "99999999999", "2147483648", "1e400", "0x"]
PLACE = st.floats(0, 1, exclude_max=True)
EDIT = st.one_of(
    st.tuples(st.just("delete"), PLACE, st.integers(1, 20)),
    st.tuples(st.just("double"), PLACE, st.integers(1, 20)),
    st.tuples(st.just("insert"), PLACE, st.sampled_from(FRAGMENTS + NUMBERS)),
    st.tuples(st.just("splice"), PLACE, st.tuples(st.sampled_from(SEEDS), PLACE)),
)


def edited(text, edit):
    """The text after one edit, whose place is a fraction of its length."""
    kind, place, how = edit
    at = int(place * len(text))
    match kind:
        case "delete":
            return text[:at] + text[at + how :]
        case "double":
            return text[: at + how] + text[at:]
        case "insert":
            return text[:at] + how + text[at:]
        case _:
            other, start = how
            begin = int(start * len(other))
            return text[:at] + other[begin : begin + 40] + text[at:]


def outcome(text):
    """The error that nybble-opt reports on `text`, or None if it prints a module."""
    try:
        printed = transform(text, "fuzz", Steps((), (), None), OPTIONS)
    except NybbleError as fault:
        return fault
    return None if printed.endswith("\n") else NybbleError("the output has no end")


@pytest.fixture(scope="module")
def small_heap():
    """What tests before left is no work for the garbage collector, whose time counts."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("small_heap")
@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(SEEDS), st.lists(EDIT, min_size=1, max_size=4))
def test_mutated_text(seed, edits):
    text = seed
    for edit in edits:
        text = edited(text, edit)
    fault = outcome(text)
    if fault is not None:
        printed = Session("nybble-opt", sources={"fuzz": text}).diagnose(fault).render("nybble-opt")
        assert fault.location is not None
        assert len(printed.splitlines()) <= MAX_LINES
