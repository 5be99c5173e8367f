"""Instruction-set levels as data: what a matmul lowering may use, each fact with its source.

`detect` picks the highest level for a set of CPU flags spelled as in Linux's /proc/cpuinfo; reading
that file is `machine`'s business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nybble.dialects.errors import UnknownNameError

_SDM = "Intel SDM vol. 2, instruction reference"
_PSABI = "x86-64 psABI, section 3.1.1"


@dataclass(frozen=True)
class Permute:
    """An LLVM intrinsic that looks up each lane's low bits in a register: `name(table, index)`.

    lanes: elements of its registers. A byte's table are the 16 of its own 128 bits.
    """

    name: str = ""
    lanes: int = 0


@dataclass(frozen=True)
class Isa:
    """An instruction-set level.

    vector_bits: width of the widest vector register. registers: number of them.
    int8_dot: LLVM intrinsic of u8 x s8 four-way dot products into i32 on whole registers, or "".
    tiles: whether there are AMX tiles with int8 and bf16 products.
    byte_shuffle: looks up bytes by the low four bits of bytes below 128.
    word_permute: looks up i32 by the low bits of i32, as many as its lanes need; none if unnamed.
    byte_permute: looks up bytes by their low six bits in a register of 64; none if unnamed.
    counts: width of the lanes whose set bits an instruction counts; 0 if there is none.
    needs: CPU flags of /proc/cpuinfo. sources: field -> where the fact is from, or "assumed".
    """

    name: str
    vector_bits: int
    registers: int
    int8_dot: str
    tiles: bool
    byte_shuffle: Permute
    word_permute: Permute
    needs: frozenset[str]
    sources: Mapping[str, str] = field(hash=False, compare=False)
    byte_permute: Permute = Permute()
    counts: int = 0


_V3_FLAGS = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2"})
_V4_FLAGS = _V3_FLAGS | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI_FLAGS = _V4_FLAGS | {"avx512_vnni"}
_VBMI_FLAGS = _VNNI_FLAGS | {"avx512vbmi"}
_AMX_FLAGS = _VBMI_FLAGS | {
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("avx512_bf16", "avx512_vpopcntdq"),
}
_VPDPBUSD = "llvm.x86.avx512.vpdpbusd.512"
_PSHUFB_256 = Permute("llvm.x86.avx2.pshuf.b", 32)
_PSHUFB_512 = Permute("llvm.x86.avx512.pshuf.b.512", 64)
_VPERMD_256 = Permute("llvm.x86.avx2.permd", 8)
_VPERMD_512 = Permute("llvm.x86.avx512.permvar.si.512", 16)
_VPERMB = Permute("llvm.x86.avx512.permvar.qi.512", 64)
_TBL = Permute("llvm.aarch64.neon.tbl1.v16i8", 16)
_X86_SOURCES = {
    "vector_bits": _SDM,
    "registers": _SDM,
    "int8_dot": _SDM + ": VPDPBUSD; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "tiles": _SDM + ": TDPBF16PS, TDPBUSD",
    "byte_shuffle": _SDM + ": PSHUFB; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "word_permute": _SDM + ": VPERMD; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "byte_permute": _SDM + ": VPERMB; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "counts": _SDM + ": VPOPCNTD",
    "needs": _PSABI + ", and arch/x86/include/asm/cpufeatures.h for the names",
}

_PERMUTES_256 = (_PSHUFB_256, _VPERMD_256)
_PERMUTES_512 = (_PSHUFB_512, _VPERMD_512)

X86_64_V3 = Isa("x86-64-v3", 256, 16, "", False, *_PERMUTES_256, _V3_FLAGS, _X86_SOURCES)
X86_64_V4 = Isa("x86-64-v4", 512, 32, "", False, *_PERMUTES_512, _V4_FLAGS, _X86_SOURCES)
AVX512_VNNI = replace(X86_64_V4, name="avx512-vnni", int8_dot=_VPDPBUSD, needs=_VNNI_FLAGS)
AVX512_VBMI = replace(AVX512_VNNI, name="avx512-vbmi", needs=_VBMI_FLAGS, byte_permute=_VPERMB)
AMX = replace(AVX512_VBMI, name="amx", tiles=True, needs=_AMX_FLAGS, counts=32)
NEON = Isa(
    "aarch64-neon",
    128,
    32,
    "",
    False,
    _TBL,
    Permute(),
    frozenset({"asimd"}),
    {
        "vector_bits": "Arm ARM (DDI 0487), A1.4",
        "registers": "Arm ARM (DDI 0487), A1.4",
        "int8_dot": "assumed: SDOT is signed x signed and optional, not used yet",
        "tiles": "assumed",
        "byte_shuffle": "Arm ARM (DDI 0487), TBL; llvm/include/llvm/IR/IntrinsicsAArch64.td",
        "word_permute": "assumed: none",
        "byte_permute": "Arm ARM (DDI 0487): TBL of four registers is not used yet",
        "counts": "Arm ARM (DDI 0487), C7.2: CNT",
        "needs": "arch/arm64/include/uapi/asm/hwcap.h",
    },
    counts=8,
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
