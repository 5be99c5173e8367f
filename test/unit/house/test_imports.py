"""Imports point one way, and only tools/ looks at the world outside."""

import ast
import re
import subprocess
import sys

import pytest

BACKENDS = {"cpu", "gpu", "fpga", "spgemm"}
OUTSIDE_MODULES = {"time", "argparse", "getopt", "getpass", "curses", "readline"}
OUTSIDE_NAMES = re.compile(
    r"sys\.argv|os\.environ|os\.getenv|.*\.get_terminal_size|.*\.isatty"
    r"|(datetime\.)?(datetime|date)\.(now|today|utcnow)"
)


def imports(source):
    """The modules that a file imports, wherever in it: absolute names."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def faults(source, layers):
    """What is wrong with the imports of one file."""
    own = layers.index(source.layer)
    for name in imports(source):
        parts = name.split(".")
        if parts[0] != "nybble" or len(parts) == 1:
            continue
        if parts[1] not in layers or layers.index(parts[1]) > own:
            yield f"{source.path} imports {name}"
        elif source.layer == parts[1] == "backends" and not siblings(source, parts):
            yield f"{source.path} imports another backend, {name}"


def siblings(source, parts):
    """Whether a file of backends/ imports its own backend, or what all backends share."""
    other = parts[2] if len(parts) > 2 else ""
    return other not in BACKENDS or other == source.path.parts[1]


def outside(source):
    """What a file below tools/ reads that only tools/ may read."""
    named = [ast.unparse(node) for node in ast.walk(source.tree) if isinstance(node, ast.Attribute)]
    used = [name for name in named if OUTSIDE_NAMES.fullmatch(name)]
    return used + [name for name in imports(source) if name.split(".")[0] in OUTSIDE_MODULES]


def test_imports_point_one_way(sources, layers):
    assert [fault for source in sources for fault in faults(source, layers)] == []


def test_only_tools_reads_the_outside(sources):
    below = [source for source in sources if source.layer != "tools"]
    assert {str(source.path): used for source in below if (used := outside(source))} == {}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("dialects/a.py", "import nybble.passes.b"),
        ("passes/a.py", "def f():\n    from nybble.tools import opt"),
        ("backends/cpu/a.py", "from nybble.backends.gpu.b import c"),
        ("tools/a.py", "from nybble.elsewhere import c"),
    ],
)
def test_wrong_imports_are_found(path, text, make_source, layers):
    assert len(list(faults(make_source(path, text), layers))) == 1


@pytest.mark.parametrize(
    "text", ["import time", "sys.argv", "os.environ", "datetime.now()", "sys.stdout.isatty()"]
)
def test_reading_the_outside_is_found(text, make_source):
    assert len(outside(make_source("passes/a.py", text))) == 1


def test_package_has_one_name_and_a_light_top():
    """No module is importable under a second name, and `import nybble` brings in no library."""
    code = (
        "import sys, pkgutil, importlib, nybble\n"
        "heavy = {'torch', 'transformers', 'numpy', 'xdsl', 'mlir'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "for found in pkgutil.walk_packages(nybble.__path__, 'nybble.'):\n"
        "    importlib.import_module(found.name)\n"
        f"bare = set({('dialects', 'passes', 'costmodel', 'backends', 'frontend', 'tools')})\n"
        "assert not bare & set(sys.modules), bare & set(sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
