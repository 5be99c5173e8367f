"""Programs as Linux processes under qemu's user mode: a thread for each hart."""

import subprocess
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from nybble.backends.spgemm.engines.outcome import EngineError, Outcome, read_report
from nybble.backends.spgemm.image import Image, bind

PROGRAM = "qemu-riscv64"
PACKAGE = "qemu-user"


def program() -> str:
    """The path of qemu; raises EngineError where it is missing."""
    found = which(PROGRAM)
    if found is None:
        raise EngineError(f"{PROGRAM} is not installed", accepted=f"apt-get install {PACKAGE}")
    return found


def run(elf: bytes, image: Image, seconds: float = 60.0, plugin: str = "") -> Outcome:
    """Run a program on an image whose setup reports; raises EngineError.

    plugin: a path of a plugin and its arguments, separated by commas; what it writes to standard
    error, names and numbers in turn, are the figures.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        path.write_bytes(bind(elf, image))
        path.chmod(0o700)
        command = [program(), *(("-plugin", plugin) if plugin else ()), str(path)]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise EngineError(f"qemu did not finish in {seconds:g} s") from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()[:200]
        raise EngineError(f"qemu ended with status {done.returncode}: {words}")
    return read_report(image, done.stdout, _figures(done.stderr) if plugin else {})


def _figures(stderr: bytes) -> dict[str, float]:
    """What a plugin says at the end: names and numbers in turn."""
    words = stderr.decode("utf-8", "replace").split()
    return {name: float(value) for name, value in zip(words[::2], words[1::2], strict=True)}
