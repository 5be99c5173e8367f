"""Packages of the bench extra, imported when a measurement asks for them."""

from importlib import import_module
from pathlib import Path
from typing import Any

from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.own_thread import OwnThread
from nybble.tools.bench.peers.api import Note, TunableModel
from nybble.tools.bench.peers.libraries import INSTALL


def package(name: str, system: str, install: str = INSTALL) -> Any:
    """The module `name` of a peer; raises UnavailableError where it is missing or broken."""
    try:
        return import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnavailableError(f"{system} is not installed ({reason})", accepted=install) from None


class KernelsOnly:
    """A peer that takes part in `bench kernels` alone."""

    system = ""

    def __init__(self) -> None:
        self._thread = OwnThread(self.system)

    def model(self, path: Path, note: Note) -> TunableModel:
        """See peers.api.Peer: raises UnavailableError."""
        raise UnavailableError(f"{self.system} runs no GGUF models", accepted="llama.cpp")
