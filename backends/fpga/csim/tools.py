"""What C simulation needs of a machine: g++, and the open headers of the vendor's types."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from nybble.dialects.errors import NybbleError

PACKAGE = "hls4ml"
HEADERS = "templates/vivado/ap_types"
INSTALL_HEADERS = "pip install --no-deps hls4ml==1.3.0"
INSTALL_COMPILER = "apt-get install g++"


class ToolError(NybbleError):
    """A tool that is missing or failed."""


@cache
def headers() -> Path:
    """The folder of ap_int.h and its like; raises ToolError without the package.

    The package is found and not imported, since only its headers are wanted.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ToolError(f"the headers of {PACKAGE} are not installed", accepted=INSTALL_HEADERS)
    folder = Path(spec.origin).parent / HEADERS
    if not (folder / "ap_int.h").is_file():
        raise ToolError(f"{folder} has no ap_int.h", accepted=INSTALL_HEADERS)
    return folder


@cache
def compiler() -> str:
    """The path of g++; raises ToolError without one."""
    found = which("g++")
    if found is None:
        raise ToolError("g++ is not installed", accepted=INSTALL_COMPILER)
    return found
