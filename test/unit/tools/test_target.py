"""The table of targets: every row leads to a function, and names that have none are refused."""

from importlib import import_module

import pytest

from nybble.tools.diagnostics import UsageError
from nybble.tools.target import (
    ROWS,
    ChosenTarget,
    CompileRequest,
    accepted,
    read_target,
    verifies,
)


@pytest.mark.parametrize("name", ROWS)
def test_rows_lead_to_functions(name):
    row = ROWS[name]
    served = [one for one in (row.compiles, row.verifies) if one]
    assert served
    for reference in served:
        module, _, function = reference.partition(":")
        assert callable(getattr(import_module(module), function))
    assert row.usual in ("", *row.levels)


def test_what_names_a_target():
    assert read_target("cpu") == ChosenTarget("cpu", "")
    assert str(read_target("cuda")) == "cuda:sm_90a"
    assert read_target("cuda:sm_35") is None
    assert read_target("tpu") is None
    assert "cuda:sm_90a" in accepted()
    assert accepted(verifies).startswith("cpu, ")


def test_options_of_other_targets_are_refused():
    target = ChosenTarget("cuda", "sm_80")
    given = {"isa": None, "threads": 2}
    request = CompileRequest("m", None, target, None, None, None, None, given)
    request.refuse("threads")
    with pytest.raises(UsageError, match="--threads with target cuda:sm_80"):
        request.refuse()
    with pytest.raises(UsageError, match="no --output"):
        request.folder()


def test_verify_names_the_targets_it_knows(run_nybble):
    outcome = run_nybble("verify", "--target", "cuda:sm_35")
    assert outcome.code == 2
    assert "unknown target 'cuda:sm_35'; accepted: cpu, cuda:sm_80" in outcome.err
