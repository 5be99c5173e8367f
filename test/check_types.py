"""Runs pyright and makes sure that it saw every file.

pyright passes over symlinked folders without a word unless each is listed in its configuration, so
"0 errors" alone may mean "0 files".
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/nybble"


def own_files() -> int:
    """The number of Python files below the package, through its links."""
    folders = [folder for folder in PACKAGE.iterdir() if folder.is_dir()]
    nested = sum(len(list(folder.resolve().rglob("*.py"))) for folder in folders)
    return nested + len(list(PACKAGE.glob("*.py")))


def main() -> int:
    """Print what pyright found and give the exit code."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        sys.stdout.write(f"pyright gave no report:\n{ran.stdout}{ran.stderr}")
        return 1
    for found in report["generalDiagnostics"]:
        start = found.get("range", {}).get("start", {"line": 0, "character": 0})
        place = f"{found['file']}:{start['line'] + 1}:{start['character'] + 1}"
        sys.stdout.write(f"{place}: {found['severity']}: {found['message']}\n")
    seen, expected = report["summary"]["filesAnalyzed"], own_files()
    sys.stdout.write(f"pyright: {report['summary']['errorCount']} errors in {seen} files\n")
    if seen != expected:
        sys.stdout.write(f"pyright saw {seen} files, but the package has {expected}\n")
        return 1
    return ran.returncode


if __name__ == "__main__":
    raise SystemExit(main())
