"""Every kind of bad input to nybble-opt ends in one located diagnostic and the right exit code."""

import re
import time
from pathlib import Path

import pytest

from nybble.tools.diagnostics import EXIT_INPUT, EXIT_USAGE, MAX_LINES

STDIN = r"<stdin>:\d+:\d+"
ADD = "%0 = arith.constant 1 : i32\n"

# name -> (text on standard input, place of the error, part of the message)
TEXTS = {
    "empty": ("", "1:1", "holds no operation"),
    "only a comment": ("// nothing\n", "2:1", "holds no operation"),
    "only blanks": ("  \n\t\n", "3:1", "holds no operation"),
    "unfinished function": ("func.func @f( {", "1:15", "Expected argument or type"),
    "unfinished region": ("func.func @f() {", "1:17", "expected"),
    "stray bracket": ("}", "1:1", "Could not parse entire input"),
    "stray name": ("hello world", "1:1", "Operation hello is not registered"),
    "not MLIR": ('{"json": [1, 2]}', "1:1", "Could not parse entire input"),
    "python": ("import os\n", "1:1", "Operation import is not registered"),
    "undefined value": (ADD + "%1 = arith.addi %0, %2 : i32", "2:21", "%2 is used but never"),
    "redefined value": (ADD + ADD, "2:1", "%0"),
    "undefined block": ("func.func @f() { cf.br ^bb7 }", "1:30", "bb7"),
    "redefined block": ("func.func @f() { cf.br ^a\n^a:\n cf.br ^a\n^a: }", "4:3", "a"),
    "unknown operation": ('"no.such"() : () -> ()', "1:2", "no.such is not registered"),
    "unknown type": ('"test.op"() : () -> !no.such', "1:22", "no.such"),
    "unknown attribute": ('"test.op"() {a = #no.such} : () -> ()', "1:19", "no.such"),
    "unknown alias": ('"test.op"() {a = #alias} : () -> ()', "1:18", "alias"),
    "alias without value": ("!a =", "1:5", "attribute expected"),
    "verifier": ('%0 = "arith.constant"() : () -> i32', "1:1", "value"),
    "operand types": (
        ADD + '%1 = "arith.addi"(%0, %0) : (i32, i32) -> i64',
        "2:1",
        "expected",
    ),
    "nested verifier": (
        'func.func @f() {\n  func.func @g() -> i32 {\n    "test.termop"() : () -> ()\n  }\n}',
        "2:3",
        "not a terminator",
    ),
    "result count": ("%0, %1 = arith.constant 1 : i32", "1:1", "1 results"),
    "return type": ("func.func @f() -> i32 { func.return }", "1:25", "types"),
    "call of nothing": (
        "func.func @f() { func.call @g() : () -> () func.return }",
        "1:18",
        "@g",
    ),
    "redefined symbol": (
        "func.func @f() { func.return }\nfunc.func @f() { func.return }",
        "1:1",
        '"f"',
    ),
    "unterminated string": ('"abc', "1:1", "unterminated string"),
    "long unterminated string": ('"' + "a" * 5000, "1:1", "unterminated string"),
    "string over two lines": ('"a\nb"() : () -> ()', "1:1", "unterminated string"),
    "invalid escape": (r'"test.op"() {a = "\q"} : () -> ()', "1:19", "invalid escape"),
    "control character": ("\x00\x01", "1:1", "control character 0x00"),
    "escape sequence": ("\x1b[31m", "1:1", "control character 0x1b"),
    "not ASCII": ("é", "1:1", "é"),
    "integer out of range": ("%0 = arith.constant 999999999999 : i32", "1:39", "out of range"),
    "huge integer": (f"%0 = arith.constant {'9' * 5000} : i32", "1:21", "5000 digits"),
    "huge integer type": ("%0 = arith.constant 1 : i999999999", "1:25", "999999999 bits"),
    "huge constant": (
        "%0 = arith.constant dense<1.0> : tensor<4096x4096xf32>",
        "1:55",
        "16777216 elements",
    ),
    "beyond memory": (
        "%0 = arith.constant dense<1.0> : tensor<99999999999x99999999999xf32>",
        "1:69",
        "elements",
    ),
    "shape of a constant": (
        "%0 = arith.constant dense<[1, 2]> : tensor<3xi32>",
        "1:50",
        "Shape mismatch",
    ),
    "hexadecimal constant": (
        '"test.op"() {a = dense<"0xZZ"> : tensor<4xf32>}: () -> ()',
        "1:47",
        "invalid",
    ),
    "negative dimension": ("func.func @f(%a: tensor<-1xf32>) { func.return }", "1:25", "shape"),
    "deep regions": ("builtin.module {\n" * 3000, "101:16", "nested more than"),
    "deep parentheses": ("(" * 5000, "1:101", "nested more than"),
    "deep types": (f'"test.op"() : () -> {"tuple<" * 3000}', "1:626", "nested more than"),
    "deep attribute": (f'"test.op"() {{a = {"[" * 3000}', "1:117", "nested more than"),
    "endless line": ("a" * 300_000, "1:1", "is not registered"),
    "long list": ('"test.op"(' + "%a, " * 2000, "1:8011", ""),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text(case, run_opt):
    text, place, message = TEXTS[case]
    begun = time.perf_counter()
    outcome = run_opt("-", stdin=text.encode())
    assert outcome.code == EXIT_INPUT
    assert outcome.out == ""
    assert_one_diagnostic(outcome.err, rf"<stdin>:{place}", message)
    # Not a timing test: this bound is a promise that a hang would break by orders of magnitude.
    assert time.perf_counter() - begun < 20


BYTES = {
    "invalid UTF-8": (b"// fine\n  \xff\xfe", "2:3", "byte 0xff is not UTF-8"),
    "MLIR bytecode": (b"ML\xefR\x06MLIR", "1:1", "bytecode"),
    "ELF": (b"\x7fELF\x02\x01\x01\x00", "1:1", "control character 0x7f"),
    "truncated UTF-8": ("// é".encode()[:-1], "1:4", "byte 0xc3"),
    "UTF-16": ("module {}".encode("utf-16"), "1:1", "byte 0xff"),
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes(case, run_opt):
    data, place, message = BYTES[case]
    outcome = run_opt(stdin=data)
    assert outcome.code == EXIT_INPUT
    assert_one_diagnostic(outcome.err, rf"<stdin>:{place}", message)


# name -> (arguments, exit code, place, part of the message); {tmp} is an empty directory.
COMMANDS = {
    "missing file": (["{tmp}/none.mlir"], EXIT_INPUT, "nybble-opt", "No such file"),
    "directory": (["{tmp}"], EXIT_INPUT, "nybble-opt", "Is a directory"),
    "file as directory": (["/dev/null/a.mlir"], EXIT_INPUT, "nybble-opt", "Not a directory"),
    "unknown option": (["--frobnicate"], EXIT_USAGE, "nybble-opt", "--frobnicate"),
    "misspelt option": (["--split-input"], EXIT_USAGE, "nybble-opt", "--split-input-file"),
    "option without value": (["-p"], EXIT_USAGE, "nybble-opt", "requires an argument"),
    "two files": (["a.mlir", "b.mlir"], EXIT_USAGE, "nybble-opt", "b.mlir"),
    "wrong number": (["--time-limit", "soon"], EXIT_USAGE, "nybble-opt", "soon"),
    "negative number": (["--time-limit", "-1"], EXIT_USAGE, "nybble-opt", "-1"),
    "unknown pass": (["-p", "no-such"], EXIT_USAGE, "<pass-pipeline>:1:1", "'no-such'"),
    "unknown second pass": (
        ["-p", "builtin.module(raise-torch-to-operators,no)"],
        EXIT_USAGE,
        "<pass-pipeline>:1:41",
        "'no'",
    ),
    "unfinished options": (["-p", "a{b=1"], EXIT_USAGE, "<pass-pipeline>:1:6", ""),
    "empty pass name": (["-p", "a,,b"], EXIT_USAGE, "<pass-pipeline>:1:3", "pass name"),
    "stray character": (["-p", "a;b"], EXIT_USAGE, "<pass-pipeline>:1:2", "Unknown token"),
    "unfinished string": (["-p", 'a{b="c'], EXIT_USAGE, "<pass-pipeline>:1:5", "Unknown"),
    "unknown stage": (["--to-stage", "no-such"], EXIT_USAGE, "nybble-opt", "'no-such'"),
    "unknown first stage": (["--from-stage", "no"], EXIT_USAGE, "nybble-opt", "'no'"),
    "output in no directory": (
        ["-o", "{tmp}/no/out.mlir"],
        EXIT_INPUT,
        "nybble-opt",
        "No such file",
    ),
    "output is a directory": (["-o", "{tmp}"], EXIT_INPUT, "nybble-opt", "directory"),
    "output below a file": (["-o", "/dev/null/out"], EXIT_INPUT, "nybble-opt", "Not a dir"),
    "no reproducer": (["--run-reproducer", "-"], EXIT_INPUT, "<stdin>:1:1", "reproducer"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_command(case, run_opt, tmp_path):
    arguments, code, place, message = COMMANDS[case]
    outcome = run_opt(
        *[item.replace("{tmp}", str(tmp_path)) for item in arguments], stdin=ADD.encode()
    )
    assert outcome.code == code
    assert outcome.out == ""
    assert_one_diagnostic(outcome.err, re.escape(place), message)
    assert list(tmp_path.iterdir()) == []


def test_diagnostic_quotes_the_line_with_a_caret(run_opt):
    outcome = run_opt("--split-input-file", stdin=b"func.func @f( {")
    assert outcome.err.splitlines()[1:3] == ["  func.func @f( {", " " * 16 + "^"]


def test_long_line_is_cut_around_the_caret(run_opt):
    text = '"test.op"() {a = "' + "x" * 5000 + '"} : () -> () ) ' + "y" * 5000
    outcome = run_opt(stdin=text.encode())
    line, caret = outcome.err.splitlines()[1:3]
    assert len(line) < 200
    assert line[caret.index("^")] == ")"


def test_error_leaves_an_existing_output_alone(run_opt, tmp_path):
    target = tmp_path / "out.mlir"
    target.write_text("old")
    assert run_opt("-o", str(target), stdin=b"func.func @f( {").code == EXIT_INPUT
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_error_in_a_later_part_is_placed_in_the_file(run_opt, tmp_path):
    path = Path(tmp_path, "in.mlir")
    path.write_text(ADD + "// -----\n" + ADD + '"no.such"() : () -> ()\n')
    outcome = run_opt("--split-input-file", str(path))
    assert outcome.code == EXIT_INPUT
    assert_one_diagnostic(outcome.err, re.escape(f"{path}:4:2"), "no.such")
    assert outcome.out == ""


def test_time_limit_ends_pathological_parsing(run_opt):
    text = "\n".join(f"%{i} = arith.constant {i} : i32" for i in range(20_000))
    outcome = run_opt("--time-limit", "0.05", stdin=text.encode())
    assert outcome.code == EXIT_INPUT
    assert_one_diagnostic(outcome.err, STDIN, "took more than 0.05 s")


def assert_one_diagnostic(err, place, message):
    """`err` is one short diagnostic at `place` (a regex) that has `message` in it."""
    lines = err.splitlines()
    assert re.match(rf"{place}: error: ", err), err[:500]
    assert message in err
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) < 600
    assert sum(": error: " in line for line in lines) == 1
    assert "Traceback" not in err
