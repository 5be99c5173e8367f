"""The text that a calibration reads unless it is given one: docstrings of the running Python.

It needs no download, and shares no module with the text that `nybble bench` measures perplexity on.
"""

from collections.abc import Iterator
from importlib import import_module

MODULES = (
    "abc", "ast", "asyncio.events", "base64", "bisect", "calendar", "codecs", "contextlib", "copy",
    "csv", "dataclasses", "email.message", "enum", "fileinput", "ftplib", "glob", "gzip", "hashlib",
    "html.parser", "http.client", "imaplib", "inspect", "ipaddress", "locale", "mailbox", "numbers",
    "pathlib", "pprint", "queue", "sched", "selectors", "shutil", "ssl", "tarfile", "tempfile",
    "traceback", "uuid", "weakref", "xml.dom.minidom",
)  # fmt: skip
SIZE = 16_000


def calibration_text() -> str:
    """The first SIZE characters of docstrings of MODULES and of what they define."""
    return "\n\n".join(_docstrings())[:SIZE]


def _docstrings() -> Iterator[str]:
    for name in MODULES:
        module = import_module(name)
        described = [module, *(found for key, found in vars(module).items() if key[0] != "_")]
        for found in described:
            text = getattr(found, "__doc__", None)
            own = found is module or getattr(found, "__module__", None) == name
            if own and isinstance(text, str) and len(text) > 80:
                yield text.strip()
