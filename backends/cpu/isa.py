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
class FourWay:
    """An instruction that adds four products of bytes to each i32 lane, modulo 2^32.

    intrinsic: LLVM's name of it: (i32 lanes, bytes, bytes) -> i32 lanes. bits: of its registers.
    signed: whether the first bytes are signed, like the second, or unsigned.
    """

    intrinsic: str
    bits: int
    signed: bool = False


@dataclass(frozen=True)
class Pairwise:
    """Instructions that add pairs of products side by side, on registers of `bits`.

    pairs_of_bytes: LLVM's name of u8 x s8 into i16 lanes, saturating. pairs_of_words: of
    s16 x s16 into i32 lanes.
    """

    pairs_of_bytes: str
    pairs_of_words: str
    bits: int


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
    int_dot: what adds up products of small integers; None for ordinary multiplication.
    tiles: whether there are AMX tiles with int8 and bf16 products.
    byte_shuffle: looks up bytes by the low four bits of bytes below 128.
    word_permute: looks up i32 by the low bits of i32, as many as its lanes need; none if unnamed.
    byte_permute: looks up bytes by their low six bits in a register of 64; none if unnamed.
    counts: width of the lanes whose set bits an instruction counts; 0 if there is none.
    streams: places of memory that one core should read side by side to read it fastest.
    ahead: bytes from what is read to what should be prefetched.
    needs: CPU flags of /proc/cpuinfo. sources: field -> where the fact is from, or "assumed".
    """

    name: str
    vector_bits: int
    registers: int
    int_dot: FourWay | Pairwise | None
    tiles: bool
    byte_shuffle: Permute
    word_permute: Permute
    needs: frozenset[str]
    sources: Mapping[str, str] = field(hash=False, compare=False)
    byte_permute: Permute = Permute()
    counts: int = 0
    streams: int = 1
    ahead: int = 8192


_V2_FLAGS = frozenset({"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_V3_FLAGS = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2"})
_V4_FLAGS = _V3_FLAGS | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI_FLAGS = _V4_FLAGS | {"avx512_vnni"}
_VBMI_FLAGS = _VNNI_FLAGS | {"avx512vbmi"}
_AMX_FLAGS = _VBMI_FLAGS | {
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("avx512_bf16", "avx512_vpopcntdq"),
}
_MADD_128 = Pairwise("llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd", 128)
_MADD_256 = Pairwise("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd", 256)
_MADD_512 = Pairwise("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512", 512)
_VNNI_256 = FourWay("llvm.x86.avx512.vpdpbusd.256", 256)
_VNNI_512 = FourWay("llvm.x86.avx512.vpdpbusd.512", 512)
_SDOT = FourWay("llvm.aarch64.neon.sdot.v4i32.v16i8", 128, signed=True)
_PSHUFB_128 = Permute("llvm.x86.ssse3.pshuf.b.128", 16)
_PSHUFB_256 = Permute("llvm.x86.avx2.pshuf.b", 32)
_PSHUFB_512 = Permute("llvm.x86.avx512.pshuf.b.512", 64)
_VPERMD_256 = Permute("llvm.x86.avx2.permd", 8)
_VPERMD_512 = Permute("llvm.x86.avx512.permvar.si.512", 16)
_VPERMB = Permute("llvm.x86.avx512.permvar.qi.512", 64)
_TBL = Permute("llvm.aarch64.neon.tbl1.v16i8", 16)
_X86_SOURCES = {
    "vector_bits": _SDM,
    "registers": _SDM,
    "int_dot": _SDM + ": VPMADDUBSW, VPMADDWD, VPDPBUSD; names in llvm/IR/IntrinsicsX86.td",
    "tiles": _SDM + ": TDPBF16PS, TDPBUSD",
    "byte_shuffle": _SDM + ": PSHUFB; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "word_permute": _SDM + ": VPERMD; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "byte_permute": _SDM + ": VPERMB; name in llvm/include/llvm/IR/IntrinsicsX86.td",
    "counts": _SDM + ": VPOPCNTD",
    "streams": "measured: 2 on a Zen 3 for 256 bits, 1 on a Sapphire Rapids for 512",
    "ahead": "measured: 1024 on a Zen 3 for 256 bits, 8192 on a Sapphire Rapids for 512",
    "needs": _PSABI + ", and arch/x86/include/asm/cpufeatures.h for the names",
}
_ARM_SOURCES = {
    "vector_bits": "Arm ARM (DDI 0487), A1.4",
    "registers": "Arm ARM (DDI 0487), A1.4",
    "int_dot": "Arm ARM (DDI 0487), C7.2: SDOT; name in llvm/IR/IntrinsicsAArch64.td",
    "tiles": "assumed: SME is not looked for",
    "byte_shuffle": "Arm ARM (DDI 0487), TBL; llvm/include/llvm/IR/IntrinsicsAArch64.td",
    "word_permute": "assumed: none",
    "byte_permute": "Arm ARM (DDI 0487): TBL of four registers is not used yet",
    "counts": "Arm ARM (DDI 0487), C7.2: CNT counts bytes",
    "streams": "assumed",
    "ahead": "assumed",
    "needs": "arch/arm64/include/uapi/asm/hwcap.h: HWCAP_ASIMD, HWCAP_ASIMDDP",
}

_PERMUTES_256 = (_PSHUFB_256, _VPERMD_256)
_PERMUTES_512 = (_PSHUFB_512, _VPERMD_512)
_PERMUTES_ARM = (_TBL, Permute())

X86_64_V2 = Isa(
    "x86-64-v2", 128, 16, _MADD_128, False, _PSHUFB_128, Permute(), _V2_FLAGS, _X86_SOURCES
)
X86_64_V3 = Isa(
    "x86-64-v3",
    256,
    16,
    _MADD_256,
    False,
    *_PERMUTES_256,
    _V3_FLAGS,
    _X86_SOURCES,
    streams=2,
    ahead=1024,
)
AVX_VNNI = replace(X86_64_V3, name="avx-vnni", int_dot=_VNNI_256, needs=_V3_FLAGS | {"avx_vnni"})
X86_64_V4 = Isa("x86-64-v4", 512, 32, _MADD_512, False, *_PERMUTES_512, _V4_FLAGS, _X86_SOURCES)
AVX512_VNNI = replace(X86_64_V4, name="avx512-vnni", int_dot=_VNNI_512, needs=_VNNI_FLAGS)
AVX512_VBMI = replace(AVX512_VNNI, name="avx512-vbmi", needs=_VBMI_FLAGS, byte_permute=_VPERMB)
AMX = replace(AVX512_VBMI, name="amx", tiles=True, needs=_AMX_FLAGS, counts=32)
NEON = Isa(
    "aarch64-neon",
    128,
    32,
    None,
    False,
    *_PERMUTES_ARM,
    frozenset({"asimd"}),
    _ARM_SOURCES,
    counts=8,
)
NEON_DOTPROD = replace(NEON, name="aarch64-dotprod", int_dot=_SDOT, needs=NEON.needs | {"asimddp"})
_X86_LEVELS = (X86_64_V2, X86_64_V3, AVX_VNNI, X86_64_V4, AVX512_VNNI, AVX512_VBMI, AMX)
LEVELS = {isa.name: isa for isa in (*_X86_LEVELS, NEON, NEON_DOTPROD)}
BASELINE = X86_64_V3
"""The level of specs that name none, and of machines that fit none."""


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
