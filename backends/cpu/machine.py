"""What the LLVM code generator needs to know about a machine, and how to read it off this host."""

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nybble.backends.cpu.isa import Isa

X86_64 = "x86_64-unknown-linux-gnu"
AARCH64 = "aarch64-unknown-linux-gnu"

# /proc/cpuinfo flag -> LLVM feature, for what lies above the x86-64-v4 baseline (source: the
# kernel's arch/x86/include/asm/cpufeatures.h and LLVM's llvm/lib/Target/X86/X86.td).
X86_EXTENSIONS = {
    "avx_vnni": "avxvnni",
    "avx512_vnni": "avx512vnni",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512ifma": "avx512ifma",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "gfni": "gfni",
    "vaes": "vaes",
    "vpclmulqdq": "vpclmulqdq",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
}
ARM_EXTENSIONS = {
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "asimdhp": "fullfp16",
}
# The flags that make an x86-64 microarchitecture level (source: the x86-64 psABI, section 3.1.1).
X86_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx2", "bmi1", "bmi2", "f16c", "fma"}),
    ("x86-64-v2", {"sse4_1", "sse4_2", "ssse3", "popcnt", "cx16"}),
)


@dataclass(frozen=True)
class Machine:
    """A code generation target.

    triple: LLVM target triple, such as "x86_64-unknown-linux-gnu".
    cpu: what LLVM calls -mcpu, such as "x86-64-v4".
    features: LLVM feature flags with their sign, such as ("+avx512vnni", "-prefer-256-bit").
    """

    triple: str
    cpu: str
    features: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The first part of the triple: "x86_64" or "aarch64"."""
        return self.triple.partition("-")[0]

    @property
    def few_registers(self) -> bool:
        """Whether there are 16 vector registers and not 32: x86-64 below AVX-512."""
        return self.triple == X86_64 and self.cpu != X86_LEVELS[0][0]

    @property
    def has_fma_and_f16c(self) -> bool:
        """Whether it multiplies and adds in one step, and converts half floats."""
        return self.triple != X86_64 or self.cpu in {name for name, _ in X86_LEVELS[:2]}

    @property
    def attributes(self) -> str:
        """The features as LLVM's -mattr wants them."""
        return ",".join(self.features)

    def runs(self, code: "Machine") -> bool:
        """Whether this machine runs what was compiled for `code`."""
        ranks = [name for name, _ in reversed(X86_LEVELS)]
        known = code.cpu in ranks and self.cpu in ranks
        level = ranks.index(code.cpu) <= ranks.index(self.cpu) if known else True
        extensions = {feature for feature in code.features if feature.startswith("+")}
        return self.triple == code.triple and level and extensions <= set(self.features)

    def __str__(self) -> str:
        return f"{self.triple}/{self.cpu}/{self.attributes}"


@cache
def cpu_flags() -> frozenset[str]:
    """The flags of the first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def x86_machine(flags: frozenset[str]) -> Machine:
    """The x86-64 machine with these /proc/cpuinfo flags: its level and the known extensions.

    A v4 machine is told to use 512-bit vectors: LLVM's own tuning of that level prefers 256.
    """
    level = next((name for name, need in X86_LEVELS if need <= flags), "x86-64")
    features = [f"+{feature}" for flag, feature in X86_EXTENSIONS.items() if flag in flags]
    if level == "x86-64-v4":
        features.append("-prefer-256-bit")
    return Machine(X86_64, level, tuple(features))


def arm_machine(flags: frozenset[str]) -> Machine:
    """The AArch64 machine with these /proc/cpuinfo features."""
    features = [f"+{feature}" for flag, feature in ARM_EXTENSIONS.items() if flag in flags]
    return Machine(AARCH64, "generic", tuple(features))


def for_level(level: Isa) -> Machine:
    """The machine that has what an instruction-set level needs and nothing more."""
    return arm_machine(level.needs) if "asimd" in level.needs else x86_machine(level.needs)


@cache
def native() -> Machine:
    """The machine this process runs on."""
    build = arm_machine if platform.machine() in {"aarch64", "arm64"} else x86_machine
    return build(cpu_flags())
