"""Every file is short, begins with what it is for, and belongs to a package."""

import ast

MAX_LINES = 600


def test_files_are_short(root):
    tested = [*root.glob("*/**/*.py"), *root.glob("docs/**/*.md")]
    own = [path for path in tested if not path.relative_to(root).parts[0].startswith(".")]
    assert len(own) > 20
    long = {str(path): n for path in own if (n := len(path.read_text().splitlines())) > MAX_LINES}
    assert long == {}


def test_files_begin_with_a_docstring_of_one_sentence(sources, root):
    faults = []
    for source in sources:
        said = ast.get_docstring(source.tree) or ""
        first = said.partition("\n\n")[0]
        if not first.rstrip().endswith((".", ":")):
            faults.append(f"{source.path}: {first!r}")
    assert faults == []
    tests = [path for path in (root / "test").rglob("*.py") if path.name != "__init__.py"]
    assert [str(path) for path in tests if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_folders_are_packages(sources):
    folders = {source.path.parent for source in sources}
    packages = {source.path.parent for source in sources if source.path.name == "__init__.py"}
    assert folders - packages == set()


def test_errors_have_the_common_base(sources):
    """Each exception class derives from NybbleError, or from InternalError for faults of ours."""
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    }

    def known(name):
        return name in ("NybbleError", "InternalError") or any(map(known, bases.get(name, ())))

    errors = [name for name in bases if name.endswith(("Error", "Exception"))]
    assert len(errors) > 5
    assert [name for name in errors if not known(name)] == []
