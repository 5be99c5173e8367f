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
    per 128 bits; byte_permute: one that looks every byte up in a table of 64; or "".
    counts_words: whether an instruction counts the bits of every 32-bit lane.
    needs: CPU flags of /proc/cpuinfo. sources: field -> where the fact is from, or "assumed".
    """

    name: str
    vector_bits: int
    registers: int
    int8_dot: str
    tiles: bool
    needs: frozenset[str]
    sources: Mapping[str, str] = field(hash=False, compare=False)
    counts_words: bool = False
    byte_shuffle: str = ""
    byte_permute: str = ""


_V3_FLAGS = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2"})
_V4_FLAGS = _V3_FLAGS | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI_FLAGS = _V4_FLAGS | {"avx512_vnni"}
_VBMI_FLAGS = _VNNI_FLAGS | {"avx512vbmi"}
_AMX_FLAGS = _VBMI_FLAGS | {
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("avx512_bf16", "avx512_vpopcntdq"),
}
_VPDPBUSD = "llvm.x86.avx512.vpdpbusd.512"
_VPERMB = "llvm.x86.avx512.permvar.qi.512"
_X86_SOURCES = {
    "vector_bits": _SDM,
    "registers": _SDM,
    "int8_dot": _SDM + ": VPDPBUSD; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "tiles": _SDM + ": TDPBF16PS, TDPBUSD",
    "counts_words": _SDM + ": VPOPCNTD",
    "byte_shuffle": _SDM + ": VPSHUFB; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "byte_permute": _SDM + ": VPERMB; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "needs": _PSABI + ", and arch/x86/include/asm/cpufeatures.h for the names",
}

_YMM_LOOKUP, _ZMM_LOOKUP = "llvm.x86.avx2.pshuf.b", "llvm.x86.avx512.pshuf.b.512"
_YMM = {"byte_shuffle": _YMM_LOOKUP}
_ZMM = {"byte_shuffle": _ZMM_LOOKUP}
X86_64_V3 = Isa("x86-64-v3", 256, 16, "", False, _V3_FLAGS, _X86_SOURCES, **_YMM)
X86_64_V4 = Isa("x86-64-v4", 512, 32, "", False, _V4_FLAGS, _X86_SOURCES, **_ZMM)
AVX512_VNNI = Isa("avx512-vnni", 512, 32, _VPDPBUSD, False, _VNNI_FLAGS, _X86_SOURCES, **_ZMM)
_ZMM = {**_ZMM, "byte_permute": _VPERMB}
AVX512_VBMI = Isa("avx512-vbmi", 512, 32, _VPDPBUSD, False, _VBMI_FLAGS, _X86_SOURCES, **_ZMM)
AMX = Isa("amx", 512, 32, _VPDPBUSD, True, _AMX_FLAGS, _X86_SOURCES, counts_words=True, **_ZMM)
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
        "counts_words": "Arm ARM (DDI 0487), C7.2: CNT counts bytes",
        "byte_shuffle": "Arm ARM (DDI 0487), C7: TBL; name in llvm/IR/IntrinsicsAArch64.td",
        "byte_permute": "Arm ARM (DDI 0487), C7: TBL of four registers is not used yet",
        "needs": "arch/arm64/include/uapi/asm/hwcap.h",
    },
    byte_shuffle="llvm.aarch64.neon.tbl1.v16i8",
)
LEVELS = {isa.name: isa for isa in (X86_64_V3, X86_64_V4, AVX512_VNNI, AVX512_VBMI, AMX, NEON)}
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
