"""Instruction-set levels as data: what a matmul lowering may use, each fact with its source.

`detect` picks the highest level for a set of CPU flags spelled as in Linux's /proc/cpuinfo; reading
that file is `machine`'s business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nybble.dialects.errors import UnknownNameError

_SDM = "Intel SDM vol. 2, instruction reference"
_PSABI = "x86-64 psABI, section 3.1.1"


@dataclass(frozen=True)
class Isa:
    """An instruction-set level.

    vector_bits: width of the widest vector register. registers: number of them.
    int8_dot: LLVM intrinsic of u8 x s8 four-way dot products into i32 on whole registers, or "".
    tiles: whether there are AMX tiles with int8 and bf16 products.
    byte_shuffle: LLVM intrinsic that looks up every byte of a whole register in a table of 16 bytes
    per 128 bits, or "". counts_words: whether an instruction counts the bits of every 32-bit lane.
    needs: CPU flags of /proc/cpuinfo. sources: field -> where the fact is from, or "assumed".
    """

    name: str
    vector_bits: int
    registers: int
    int8_dot: str
    tiles: bool
    needs: frozenset[str]
    sources: Mapping[str, str] = field(hash=False, compare=False)
    byte_shuffle: str = ""
    counts_words: bool = False


_V3_FLAGS = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2"})
_V4_FLAGS = _V3_FLAGS | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI_FLAGS = _V4_FLAGS | {"avx512_vnni"}
_AMX_FLAGS = _VNNI_FLAGS | {
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("avx512_bf16", "avx512_vpopcntdq"),
}
_VPDPBUSD = "llvm.x86.avx512.vpdpbusd.512"
_X86_SOURCES = {
    "vector_bits": _SDM,
    "registers": _SDM,
    "int8_dot": _SDM + ": VPDPBUSD; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "tiles": _SDM + ": TDPBF16PS, TDPBUSD",
    "byte_shuffle": _SDM + ": VPSHUFB; names in llvm/include/llvm/IR/IntrinsicsX86.td",
    "counts_words": _SDM + ": VPOPCNTD",
    "needs": _PSABI + ", and arch/x86/include/asm/cpufeatures.h for the names",
}

_YMM_LOOKUP, _ZMM_LOOKUP = "llvm.x86.avx2.pshuf.b", "llvm.x86.avx512.pshuf.b.512"
X86_64_V3 = Isa("x86-64-v3", 256, 16, "", False, _V3_FLAGS, _X86_SOURCES, _YMM_LOOKUP)
X86_64_V4 = Isa("x86-64-v4", 512, 32, "", False, _V4_FLAGS, _X86_SOURCES, _ZMM_LOOKUP)
AVX512_VNNI = Isa("avx512-vnni", 512, 32, _VPDPBUSD, False, _VNNI_FLAGS, _X86_SOURCES, _ZMM_LOOKUP)
AMX = Isa("amx", 512, 32, _VPDPBUSD, True, _AMX_FLAGS, _X86_SOURCES, _ZMM_LOOKUP, counts_words=True)
NEON = Isa(
    "aarch64-neon",
    128,
    32,
    "",
    False,
    frozenset({"asimd"}),
    {
        "vector_bits": "Arm ARM (DDI 0487), A1.4",
        "registers": "Arm ARM (DDI 0487), A1.4",
        "int8_dot": "assumed: SDOT is signed x signed and optional, not used yet",
        "tiles": "assumed",
        "byte_shuffle": "assumed: TBL is not used yet",
        "counts_words": "Arm ARM (DDI 0487), C7.2: CNT counts bytes",
        "needs": "arch/arm64/include/uapi/asm/hwcap.h",
    },
)
LEVELS = {isa.name: isa for isa in (X86_64_V3, X86_64_V4, AVX512_VNNI, AMX, NEON)}
BASELINE = X86_64_V3
"""What runs where no level fits: its kernels use generic vector operations alone."""


def detect(flags: frozenset[str]) -> Isa:
    """The highest level whose flags are all in `flags`; the baseline if there is none."""
    fitting = [isa for isa in LEVELS.values() if isa.needs <= flags]
    return fitting[-1] if fitting else BASELINE


def get(name: str) -> Isa:
    """The level of that name; raises UnknownNameError."""
    if name not in LEVELS:
        raise UnknownNameError(
            f"unknown instruction-set level '{name}'", accepted=", ".join(LEVELS)
        )
    return LEVELS[name]
