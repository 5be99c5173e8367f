"""The one error that reading a checkpoint raises, with the place it is about."""

from pathlib import Path

from nybble.dialects.errors import NybbleError

_QUOTE_LIMIT = 80
_PATH_LIMIT = 1024


class CheckpointError(NybbleError, ValueError):
    """A checkpoint that cannot be used: where, what is wrong, the value, and what is accepted.

    ``path`` is the file or folder; ``offset`` the byte in it, where the fault has one.
    """

    def __init__(self, path: Path | str, message: str, offset: int | None = None) -> None:
        self.path = str(path)
        self.offset = offset
        shown = self.path
        if not shown.isprintable() or len(shown) > _PATH_LIMIT:
            shown = quoted(shown)
        where = shown if offset is None else f"{shown}: byte {offset}"
        super().__init__(f"{where}: {message}")


def quoted(value: object) -> str:
    """`value` as a short, printable, one-line string: names in a file may hold anything."""
    text = ascii(value)
    return text if len(text) <= _QUOTE_LIMIT else f"{text[: _QUOTE_LIMIT - 3]}..."


def listed(names: list[str], limit: int = 3) -> str:
    """The first few of `names`, quoted, and how many were left off."""
    shown = ", ".join(quoted(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
