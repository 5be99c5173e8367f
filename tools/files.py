"""Reading inputs and publishing outputs of a command: whole files or nothing."""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from nybble.dialects.errors import NybbleError
from nybble.dialects.screening import MAX_BYTES

STANDARD_STREAM = "-"
STDIN_NAME = "<stdin>"


def display_name(path: str) -> str:
    """The name of an input in messages."""
    return STDIN_NAME if path == STANDARD_STREAM else path


def read_input(path: str) -> bytes:
    """All bytes of a file, or of standard input for `-`, one more than MAX_BYTES at most.

    Raises OSError, as the operating system has it.
    """
    if path == STANDARD_STREAM:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def read_text(path: str) -> str:
    """The text of a file; raises NybbleError where it is not UTF-8."""
    data = read_input(path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NybbleError(
            f"{display_name(path)}: byte {error.start} is 0x{data[error.start]:02x}, no UTF-8",
            accepted="a text file in UTF-8",
        ) from None


def write_output(path: str, data: bytes) -> None:
    """Publish `data` as a file in one step, or write it to standard output for `-`.

    A reader sees the old file or the whole new one; a failure leaves nothing behind. What is not
    a regular file (a device, a pipe) is written to directly. Raises OSError.
    """
    if path == STANDARD_STREAM:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        target.write_bytes(data)
        return
    _publish(target, data)


def _publish(target: Path, data: bytes) -> None:
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(13, "Permission denied", str(target))
    draft = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        draft.write_bytes(data)
        draft.replace(target)
    except OSError as fault:
        raise OSError(fault.errno, fault.strerror, str(target)) from fault
    finally:
        with suppress(OSError):
            draft.unlink()
