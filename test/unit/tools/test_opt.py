"""What nybble-opt does with good input, and how it reports faults of nybble."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nybble.tools.diagnostics import (
    EXIT_BUG,
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
)

MODULE = b"func.func @f(%a: i32) -> i32 {\n  func.return %a : i32\n}\n"
PRINTED = """builtin.module {
  func.func @f(%a: i32) -> i32 {
    func.return %a : i32
  }
}
"""

pytestmark = pytest.mark.usefixtures("passes_for_tests")


def test_prints_what_it_reads(run_opt):
    outcome = run_opt(stdin=MODULE)
    assert (outcome.code, outcome.out, outcome.err) == (EXIT_OK, PRINTED, "")


def test_prints_the_generic_form(run_opt):
    assert '"func.return"(%a)' in run_opt("--mlir-print-op-generic", stdin=MODULE).out


def test_prints_locations(run_opt):
    assert 'loc("<stdin>":2:3)' in run_opt("--mlir-print-debuginfo", stdin=MODULE).out


def test_output_reads_back(run_opt):
    assert run_opt(stdin=PRINTED.encode()).out == PRINTED


def test_reads_and_writes_files(run_opt, tmp_path):
    source, target = tmp_path / "in.mlir", tmp_path / "out.mlir"
    source.write_bytes(MODULE)
    assert run_opt(str(source), "-o", str(target)).out == ""
    assert target.read_text() == PRINTED
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_writes_through_a_link_and_to_a_device(run_opt, tmp_path):
    target, link = tmp_path / "out.mlir", tmp_path / "link"
    target.touch()
    link.symlink_to(target)
    assert run_opt("-o", str(link), stdin=MODULE).code == EXIT_OK
    assert link.is_symlink()
    assert target.read_text() == PRINTED
    assert run_opt("-o", "/dev/null", stdin=MODULE).code == EXIT_OK
    assert not Path("/dev/null").is_file()


def test_unregistered_operations_need_the_flag(run_opt):
    text = b'"no.such"() : () -> ()'
    assert run_opt(stdin=text).code == EXIT_INPUT
    assert '"no.such"() : () -> ()' in run_opt("--allow-unregistered-dialect", stdin=text).out


def test_runs_passes_with_options(run_opt):
    pipeline = "builtin.module(test-idle,test-mark{label=done times=2})"
    assert "attributes {done}" in run_opt("-p", pipeline, stdin=MODULE).out
    assert "attributes {marked}" in run_opt("--pass-pipeline=test-mark", stdin=MODULE).out


def test_wrong_pass_option_names_the_right_ones(run_opt):
    outcome = run_opt("-p", "test-idle,test-mark{frob=1}", stdin=MODULE)
    assert outcome.code == EXIT_USAGE
    assert outcome.err.startswith("<pass-pipeline>:1:11: error: pass 'test-mark': ")
    assert "accepted: label (str), times (int)" in outcome.err


def test_splits_the_input(run_opt):
    text = b"// a comment alone\n// -----\n" + MODULE + b"// -----\n" + MODULE
    assert run_opt("--split-input-file", stdin=text).out == f"{PRINTED}\n// -----\n\n{PRINTED}"


def test_prints_the_ir_after_passes(run_opt):
    pipeline = ["-p", "test-idle,test-mark"]
    every = run_opt("--mlir-print-ir-after-all", *pipeline, stdin=MODULE).err
    assert re.findall("IR Dump After (.*) //-----", every) == ["test-idle", "test-mark"]
    changed = run_opt("--mlir-print-ir-after-change", *pipeline, stdin=MODULE).err
    assert re.findall("IR Dump After (.*) //-----", changed) == ["test-mark"]


def test_prints_timing(run_opt):
    err = run_opt("--mlir-timing", "-p", "test-idle,test-mark", stdin=MODULE).err
    assert re.findall(r" s  ([\w-]+)", err) == ["test-idle", "test-mark", "total"]


def test_lists_passes(run_opt):
    out = run_opt("--list-passes").out
    assert re.search(r"^  test-mark +Gives the module an attribute\.$", out, re.MULTILINE)


def test_version_and_help_load_no_pass_and_no_dialect():
    code = (
        "import sys\nfrom nybble.tools.opt import main\n"
        "try: main([sys.argv[1]])\nexcept SystemExit as left: assert left.code == 0\n"
        "loaded = [n for n in sys.modules if n.startswith(('nybble.passes.', 'xdsl.dialects.'))]\n"
        "assert not loaded, loaded\n"
    )
    for option in ("--version", "--help"):
        ran = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "nybble-opt" in ran.stdout


def test_error_of_a_pass_is_about_the_input(run_opt):
    outcome = run_opt("-p", "test-reject", stdin=MODULE)
    assert outcome.code == EXIT_INPUT
    assert outcome.err.startswith("<stdin>:1:1: error: 'func.func' will not do\n  func.func @f")
    outcome = run_opt("-p", "test-fail", stdin=MODULE)
    assert (outcome.code, outcome.err) == (EXIT_INPUT, "nybble-opt: error: no way\n")


def test_crash_leaves_a_reproducer_that_replays(run_opt, tmp_path):
    path = tmp_path / "crash.mlir"
    option = f"--mlir-pass-pipeline-crash-reproducer={path}"
    outcome = run_opt(option, "-p", "test-idle,test-crash", "-o", "/no/such", stdin=MODULE)
    assert outcome.code == EXIT_BUG
    assert outcome.out == ""
    assert "pass 'test-crash' raised KeyError: 'lost'" in outcome.err
    assert f"replay: nybble-opt --run-reproducer {path}" in outcome.err
    assert "Traceback" not in outcome.err
    assert "Traceback" in path.read_text()
    again = run_opt("--run-reproducer", str(path))
    assert again.code == EXIT_BUG
    assert "pass 'test-crash' raised KeyError: 'lost'" in again.err


def test_invalid_result_of_a_pass_is_our_fault(run_opt, tmp_path):
    option = f"--mlir-pass-pipeline-crash-reproducer={tmp_path / 'broken.mlir'}"
    outcome = run_opt(option, "-p", "test-break", stdin=MODULE)
    assert outcome.code == EXIT_BUG
    assert "pass 'test-break' left invalid IR" in outcome.err


def test_reproducer_that_cannot_be_written_is_said(run_opt):
    option = "--mlir-pass-pipeline-crash-reproducer=/no/such/file"
    outcome = run_opt(option, "-p", "test-crash", stdin=MODULE)
    assert outcome.code == EXIT_BUG
    assert "no reproducer could be written" in outcome.err


def test_interrupt(run_opt):
    outcome = run_opt("-p", "test-interrupt", stdin=MODULE)
    assert (outcome.code, outcome.err) == (EXIT_INTERRUPTED, "nybble-opt: error: interrupted\n")


def test_as_a_process(tmp_path):
    program = Path(sys.executable).with_name("nybble-opt")
    good = subprocess.run([program], input=MODULE, capture_output=True)
    assert (good.returncode, good.stdout.decode(), good.stderr) == (EXIT_OK, PRINTED, b"")
    bad = subprocess.run([program, "-"], input=b"func.func @f( {", capture_output=True)
    assert bad.returncode == EXIT_INPUT
    assert bad.stderr.startswith(b"<stdin>:1:15: error: ")
    (tmp_path / "big.mlir").write_bytes(b"// -----\n".join([MODULE] * 3000))
    piped = subprocess.run(
        f"set -o pipefail; '{program}' --split-input-file big.mlir | head -n 1",
        shell=True,
        executable="/bin/bash",
        cwd=tmp_path,
        capture_output=True,
    )
    assert (piped.returncode, piped.stderr) == (EXIT_OK, b"")


EXPECTATIONS = {
    "met on the next line": ('// expected-error @+1 {{not registered}}\n"no.a"() : () -> ()', None),
    "met on its own line": ('"no.a"() : () -> () // expected-error {{not registered}}', None),
    "met below": (
        '// expected-error @below {{not reg}}\n// plain\n"no.a"() : () -> ()',
        "unexpected error",
    ),
    "met above": ('"no.a"() : () -> ()\n// expected-error @above {{not reg}}', None),
    "met by a regex": ('"no.a"() : () -> () // expected-error-re {{no\\.[a-c] is}}', None),
    "on another line": ('// expected-error {{not reg}}\n"no.a"() : () -> ()', "unexpected error"),
    "another text": ('"no.a"() : () -> () // expected-error {{else}}', "unexpected error"),
    "none": ('"no.a"() : () -> ()', "unexpected error"),
    "not met": ('// expected-error {{all wrong}}\n"test.op"() : () -> ()', "was not reported"),
    "one of two": (
        '// expected-error @+2 {{not reg}}\n// expected-error @+1 {{no.a}}\n"no.a"() : () -> ()',
        "was not reported",
    ),
    "misspelt": ('"test.op"() : () -> () // expected-eror {{a}}', "malformed expectation"),
}


@pytest.mark.parametrize("case", EXPECTATIONS)
def test_verify_diagnostics(case, run_opt):
    text, message = EXPECTATIONS[case]
    outcome = run_opt("--verify-diagnostics", stdin=text.encode())
    assert outcome.code == (EXIT_OK if message is None else EXIT_INPUT)
    assert (message or "") in outcome.err
    assert bool(outcome.err) == bool(message)
