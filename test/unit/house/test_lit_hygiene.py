"""No lit test can pass without looking: the faults that FileCheck tests are known to have."""

import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from filecheck.matcher import Matcher
from filecheck.options import parse_argv_options

SUFFIXES = {".mlir", ".test"}
RUN = re.compile(r"^\s*//\s*RUN:\s*(.*)$", re.MULTILINE)
DIRECTIVE = re.compile(r"//\s*([A-Z][A-Z0-9_]*?)(?:-(?:NEXT|SAME|NOT|DAG|LABEL|EMPTY|COUNT-\d+))?:")
NO_COLON = re.compile(
    r"//\s*(?:CHECK\w*|[A-Z][A-Z0-9_]+)(?:-(?:NEXT|SAME|NOT|DAG|LABEL|EMPTY))?\s+\S*[%@\"{=]"
)
TRIVIAL_OUTPUTS = ("builtin.module {\n}\n", '"builtin.module"() ({\n}) : () -> ()\n')
NOT_PREFIXES = {"RUN", "REQUIRES", "UNSUPPORTED", "XFAIL", "COM", "TODO", "NOTE"}


def run_lines(text):
    """The RUN commands of a test, with continued lines joined."""
    return RUN.findall(re.sub(r"\\\s*\n\s*//\s*RUN:", " ", text))


def filecheck_calls(line):
    """The argument lists of the filecheck commands in a RUN line."""
    for part in re.split(r"\||&&|;", line):
        words = shlex.split(part)
        if words and words[0] == "filecheck":
            yield words[1:]


def prefixes(arguments):
    """The prefixes a filecheck command looks for."""
    joined = " ".join(arguments)
    found = re.findall(r"--?check-prefix(?:es)?[= ](\S+)", joined)
    return [prefix for given in found for prefix in given.split(",")] or ["CHECK"]


def faults(text, path):
    """Everything that is wrong with one test; `path` is a file with that text."""
    lines = run_lines(text)
    if not lines:
        yield "has no RUN line"
    calls = [call for line in lines for call in filecheck_calls(line)]
    yield from command_faults(lines, text)
    yield from directive_faults(text, {prefix for call in calls for prefix in prefixes(call)})
    for call in calls:
        for output in TRIVIAL_OUTPUTS:
            if passes_on(output, call, path):
                yield f"filecheck {' '.join(call)} passes on an empty module"


def command_faults(lines, text):
    for line in lines:
        checked = re.search(r"\bfilecheck\b|--verify-diagnostics|\bdiff\b", line)
        if "%s" not in line:
            yield f"RUN line without %s: {line}"
        if not checked:
            yield f"RUN line without a check: {line}"
        if re.search(r"\bfilecheck\b", line) and "--allow-empty" in line:
            yield f"RUN line that accepts empty output: {line}"
    verifies = any("--verify-diagnostics" in line for line in lines)
    if verifies != bool(re.search(r"expected-error", text)):
        yield "--verify-diagnostics and expected-error comments go together"


def directive_faults(text, used):
    body = [line for line in text.splitlines() if not re.search(r"//\s*RUN:", line)]
    spelt = {found[1] for line in body if (found := DIRECTIVE.search(line))} - NOT_PREFIXES
    yield from (f"prefix {prefix} is used by no RUN line" for prefix in sorted(spelt - used))
    yield from (f"prefix {prefix} has no directive" for prefix in sorted(used - spelt))
    for line in body:
        if NO_COLON.search(line) and not DIRECTIVE.search(line):
            yield f"directive without a colon: {line.strip()}"


def passes_on(output, arguments, path):
    """Whether a filecheck command is content with `output`."""
    produced = path.with_suffix(".output")
    produced.write_text(output)
    given = [str(path) if word == "%s" else word for word in arguments]
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        options = parse_argv_options(["filecheck", *given, f"--input-file={produced}"])
        return Matcher.from_opts(options).run() == 0


def test_all_lit_tests(root, tmp_path):
    tests = [path for path in (root / "test/filecheck").rglob("*") if path.suffix in SUFFIXES]
    assert len(tests) > 5
    found = {}
    for path in tests:
        copy = tmp_path / "test.mlir"
        copy.write_text(path.read_text())
        if wrong := list(faults(copy.read_text(), copy)):
            found[str(path.relative_to(root))] = wrong
    assert found == {}


GOOD = "// RUN: nybble-opt %s | filecheck %s\n// CHECK: func.func\n"
BAD = {
    "no RUN": ("// CHECK: a\n", "no RUN line"),
    "no %s": ("// RUN: nybble-opt - | filecheck - \n// CHECK: a\n", "without %s"),
    "no check": ("// RUN: nybble-opt %s\n", "without a check"),
    "no colon": (GOOD + "// CHECK-NEXT %0 = arith.constant\n", "without a colon"),
    "unused prefix": (GOOD + "// GENERIC: func.func\n", "GENERIC is used by no RUN line"),
    "prefix without directive": (
        GOOD + "// RUN: nybble-opt %s | filecheck %s --check-prefix=GENERIC\n",
        "GENERIC has no directive",
    ),
    "only CHECK-NOT": (
        "// RUN: nybble-opt %s | filecheck %s\n// CHECK-NOT: arith\n",
        "passes on an empty module",
    ),
    "only the module": (
        "// RUN: nybble-opt %s | filecheck %s\n// CHECK: builtin.module\n",
        "passes on an empty module",
    ),
    "accepts empty output": (
        "// RUN: nybble-opt %s | filecheck %s --allow-empty\n// CHECK: a\n",
        "accepts empty output",
    ),
    "expects nothing": ("// RUN: nybble-opt %s --verify-diagnostics\n", "go together"),
    "expects in vain": (GOOD + "// expected-error {{a}}\n", "go together"),
}


@pytest.mark.parametrize("case", BAD)
def test_fault_is_found(case, tmp_path):
    text, message = BAD[case]
    path = tmp_path / "test.mlir"
    path.write_text(text)
    assert any(message in fault for fault in faults(text, path))


def test_good_test_has_no_fault(tmp_path):
    path = tmp_path / "test.mlir"
    text = GOOD + "// RUN: nybble-opt %s \\\n// RUN: | filecheck %s --check-prefix=B\n// B: call\n"
    path.write_text(text)
    assert list(faults(text, path)) == []
