"""Programs that are run for a circuit."""

import subprocess
from collections.abc import Sequence

from nybble.backends.fpga.rtl.errors import RtlError

SECONDS = 3600
"""A program that takes longer hangs."""


def run_tool(
    what: str, command: Sequence[str], given: bytes = b"", seconds: float = SECONDS
) -> "subprocess.CompletedProcess[bytes]":
    """Runs a program to its end; raises RtlError if that does not come."""
    try:
        return subprocess.run(
            command, input=given, capture_output=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise RtlError(f"{what} did not end within {seconds:.0f} seconds") from None
