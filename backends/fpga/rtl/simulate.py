"""Circuits run by Verilator: built once, kept by content, many products in one run."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import numpy as np

from nybble.backends.cache import Cache
from nybble.backends.fpga.rtl.encoding import U32, Beats
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.tool import run_tool

DRIVER = Path(__file__).with_name("driver.cpp")
OPTIONS = (
    "--cc", "--exe", "--build", "-O3", "-Wno-fatal", "-MAKEFLAGS",
    "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O0",
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What one product gave: words of y u32 [rows, words], and cycles.

    loading: before the first weights were taken; cycles: from then to the last of y.
    """

    y: U32
    loading: int
    cycles: int


def verilator() -> str:
    """The program; raises RtlError where it is missing."""
    found = which("verilator")
    if found is None:
        raise RtlError("Verilator is not installed", accepted="apt-get install verilator")
    return found


def program(verilog: str, top: str, cache: Cache, driver: Path = DRIVER) -> bytes:
    """The simulator of a circuit as an executable file, from the cache or built.

    driver: its `main`. Raises RtlError with what Verilator or the compiler says.
    """
    key = hashlib.blake2b(
        "\0".join((verilog, top, *OPTIONS)).encode() + driver.read_bytes(), digest_size=32
    ).hexdigest()
    data = cache.get(key)
    if data is None:
        data = _built(verilog, top, driver)
        cache.put(key, data)
    return data


def _built(verilog: str, top: str, driver: Path) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "design.sv").write_text(verilog)
        command = [
            verilator(), *OPTIONS, "-CFLAGS", f"-DDESIGN=V{top}", "--top-module", top,
            "--Mdir", name, "-o", "simulate", str(folder / "design.sv"), str(driver),
        ]  # fmt: skip
        done = run_tool("Verilator", command)
        if done.returncode != 0:
            wrong = [
                line for line in (done.stdout + done.stderr).decode().splitlines() if "rror" in line
            ]
            raise RtlError(f"Verilator cannot build '{top}': {wrong[0] if wrong else 'it failed'}")
        return (folder / "simulate").read_bytes()


def run(
    executable: bytes, cases: Sequence[Beats], y_words: int, pauses: Sequence[int] = ()
) -> list[Ran]:
    """Runs products on a simulator.

    pauses: for each product, how often out of 256 an input makes the element wait; default: never.
    Raises RtlError for a product that does not end.
    """
    parts = [np.array([len(cases), cases[0].a.shape[1], cases[0].w.shape[1], y_words])]
    for number, case in enumerate(cases):
        pause = pauses[number] if pauses else 0
        facts = [case.limit, len(case.a), len(case.w), case.results, pause, number]
        parts += [np.array(facts), case.a.ravel(), case.w.ravel(), case.flags]
    given = b"".join(part.astype("<u4").tobytes() for part in parts)
    return _read(output_of(executable, given), len(cases), y_words)


def output_of(executable: bytes, given: bytes) -> bytes:
    """What a simulator says of its input; raises RtlError if it fails or hangs."""
    descriptor, name = tempfile.mkstemp(prefix="nybble-rtl-")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(executable)
        path.chmod(0o700)
        done = run_tool("the simulation", [name], given)
    finally:
        path.unlink()
    if done.returncode != 0:
        raise RtlError(f"the simulation ended with {done.returncode}: {done.stderr[-200:]!r}")
    return done.stdout


def _read(data: bytes, cases: int, y_words: int) -> list[Ran]:
    words = np.frombuffer(data, "<u4")
    found: list[Ran] = []
    at = 0
    for number in range(cases):
        status, loading, cycles, rows = (int(word) for word in words[at : at + 4])
        if status != 0:
            raise RtlError(f"case {number} does not end: {rows} rows of results came")
        at += 4
        y = words[at : at + rows * y_words].reshape(rows, y_words)
        found.append(Ran(y, loading, cycles))
        at += rows * y_words
    return found
