"""How every kind of verification shows its progress, tells what it found, and ends."""

import json
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress as Bar

from nybble.tools.diagnostics import UsageError
from nybble.tools.files import write_output

EXIT_FAILED = 1
SHOWN = 20
"""Failures that a report lists."""
Progress = Callable[[int], None]


def check_dataflow(given: str | None, known: Collection[str]) -> None:
    """Raise UsageError for a dataflow that a target does not have."""
    if given and given not in known:
        raise UsageError(f"unknown dataflow '{given[:40]}'", accepted=", ".join(known))


def tell(found: Mapping[str, object], lines: Iterable[str], json_file: str | None) -> int:
    """Write a report as JSON, or print its lines; the exit code. found: has `failed`."""
    if json_file is not None:
        write_output(json_file, (json.dumps(found) + "\n").encode())
    else:
        click.echo("\n".join(lines))
    return EXIT_FAILED if found["failed"] else 0


def counts(found: Mapping[str, object], names: Sequence[str]) -> list[str]:
    """A line for each of these keys."""
    return [f"{name}: {found[name]}" for name in names]


def failures(found: Mapping[str, object]) -> list[str]:
    """A line for each failure of a report."""
    listed = found["failures"]
    assert isinstance(listed, list)
    return [f"case {one['case']}: {one}" for one in listed]


@contextmanager
def shown_progress(total: int) -> Generator[Progress]:
    """A bar on the error stream; nothing where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done: None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("verifying", total=total)
        yield lambda done: bar.update(task, completed=done)
