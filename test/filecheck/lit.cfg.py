"""lit: runs the `RUN` lines of the .mlir files in this folder with the environment's own tools."""

import sys
from pathlib import Path

import lit.formats

config.name = "nybble"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.test_source_root = str(Path(__file__).parent)
config.test_exec_root = str(Path(__file__).parents[2] / "build" / "lit")

# The interpreter that runs lit decides which nybble-opt and filecheck are tested; safe-path mode
# keeps the repository's folders from being imported as `dialects`, `passes` and so on.
config.environment["PATH"] = f"{Path(sys.executable).parent}:{config.environment['PATH']}"
config.environment["PYTHONSAFEPATH"] = "1"
