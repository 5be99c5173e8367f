"""nybble doctor: what this machine and installation can do, and what to do where they cannot."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from shutil import which

import click

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.host import request_amx
from nybble.backends.cpu.machine import cpu_flags, native
from nybble.backends.fpga.csim.tools import compiler, headers
from nybble.backends.gpu import nvrtc, ptxas
from nybble.backends.gpu.driver import installed
from nybble.backends.llvm.toolchain import program, versions
from nybble.dialects.errors import NybbleError
from nybble.frontend.checkpoint.aliases import ALIASES, packaged_file
from nybble.tools.models import CACHE_VARIABLE, cache_root

EXTRAS = {
    "torch": "torch",
    "torch-mlir": "torch",
    "transformers": "torch",
    "llama-cpp-python": "bench",
    "spike": "spgemm",
    "rvsim": "spgemm",
    "circt": "fpga",
    "pyosys": "fpga",
}
"""Package -> the extra that brings it."""
PROGRAMS = {
    "qemu-aarch64": "qemu-user",
    "aarch64-linux-gnu-ld": "binutils-aarch64-linux-gnu",
    "riscv64-linux-gnu-as": "binutils-riscv64-linux-gnu",
    "riscv64-linux-gnu-ld": "binutils-riscv64-linux-gnu",
    "qemu-riscv64": "qemu-user",
    "dtc": "device-tree-compiler",
    "cc": "gcc",
    "verilator": "verilator",
}
"""What makes and runs code for AArch64 and the SpGEMM accelerator, and circuits, in tests -> the
package of Debian that brings it."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `remedy` is a command or sentence where something is amiss.

    needed: whether nybble cannot work without it.
    """

    subject: str
    found: str
    remedy: str = ""
    needed: bool = False

    def line(self) -> str:
        """The printed form."""
        mark = "ok" if not self.remedy else ("MISSING" if self.needed else "absent")
        tail = f" -> {self.remedy}" if self.remedy else ""
        return f"{mark:8}{self.subject}: {self.found}{tail}"


def findings() -> Iterator[Finding]:
    """Everything looked at, in order."""
    yield Finding("python", sys.version.split()[0])
    yield _toolchain()
    yield _found("llvm-mca", lambda: program("llvm-mca"))
    level = levels.detect(cpu_flags())
    yield Finding("processor", f"{native()}, level {level.name}, {os.cpu_count()} threads")
    if level.tiles:
        granted = request_amx()
        remedy = "" if granted else "pass --isa avx512-vnni"
        yield Finding("AMX tiles", "granted" if granted else "refused by the kernel", remedy)
    yield from _gpu()
    yield from _csim()
    yield from (_package(name, extra) for name, extra in EXTRAS.items())
    yield from (_program(name, brought) for name, brought in PROGRAMS.items())
    yield from (_alias(name) for name in ALIASES)
    yield _cache()


def _toolchain() -> Finding:
    try:
        return Finding("compiler", versions())
    except NybbleError as error:
        return Finding("compiler", error.message, error.accepted or "reinstall nybble", needed=True)


def _gpu() -> Iterator[Finding]:
    """The GPU with its driver, or what is missing; the tools that make and show its code."""
    try:
        driver = installed()
        device = driver.device()
        cuda = "{}.{}".format(*driver.version)
        yield Finding("GPU", f"{device.name}, {device.arch}, driver for CUDA {cuda}")
    except NybbleError as error:
        yield Finding("GPU", error.message, error.accepted or "look at nvidia-smi")
    for name in ("ptxas", "nvdisasm"):
        yield _found(name, lambda name=name: str(ptxas.tool(name)))
    yield _found("NVRTC", lambda: "{}.{}".format(*nvrtc.version()))


def _csim() -> Iterator[Finding]:
    """What C simulation of FPGA kernels needs."""
    yield _found("g++", compiler)
    yield _found("ap_types headers", lambda: str(headers()))


def _found(subject: str, find: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, find())
    except NybbleError as error:
        return Finding(subject, error.message, error.accepted or "reinstall it")


def _package(name: str, extra: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", f"pip install 'nybble[{extra}]'")


def _program(name: str, brought: str) -> Finding:
    found = which(name)
    return Finding(name, found or "not installed", "" if found else f"apt-get install {brought}")


def _alias(name: str) -> Finding:
    try:
        return Finding(f"model {name}", str(packaged_file(name)))
    except NybbleError as error:
        return Finding(f"model {name}", error.message, error.accepted or "")


def _cache() -> Finding:
    root = cache_root()
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    if place.is_dir() and os.access(place, os.W_OK):
        return Finding("cache", str(root))
    return Finding("cache", f"{root} cannot be written", f"set {CACHE_VARIABLE} to one that can")


@click.command(name="doctor")
def command() -> int:
    """Check the machine and the installation; exits with 1 if something needed is missing."""
    found = list(findings())
    for finding in found:
        click.echo(finding.line())
    return 1 if any(finding.remedy and finding.needed for finding in found) else 0
