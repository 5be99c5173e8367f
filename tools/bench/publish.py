"""Where a finished measurement goes."""

import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from nybble.tools.bench.report import Column, Report
from nybble.tools.files import STANDARD_STREAM, write_output

_PIPE_WIDTH = 200  # columns of a table that is not printed on a terminal


def keeper(json_file: str | None) -> Callable[[Report], None]:
    """Writes a report that is not finished yet to a file, so that what was measured outlives an
    interruption; does nothing where no file is asked for.
    """

    def keep(report: Report) -> None:
        if json_file is not None and json_file != STANDARD_STREAM:
            write_output(json_file, report.as_json().encode())

    return keep


def publish(report: Report, columns: Sequence[Column], json_file: str | None) -> None:
    """The JSON where it is asked for, and the table unless the JSON is on standard output."""
    if json_file is not None:
        write_output(json_file, report.as_json().encode())
    if json_file != STANDARD_STREAM:
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        report.print(Console(file=sys.stdout, width=width), columns)
