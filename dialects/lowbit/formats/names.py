"""The table of short format names, each a spelling in the grammar of `grammar`.

Adding a format whose parts exist is one row here. Beside the rows, three patterns are names:
`wN[gG][z|m]` (uniform weights: symmetric, stored integer zero, stored minimum), `aN[gG]`
(activations: narrow signed integers, f32 scale; `a16` has two 8-bit digits), `abN[gG]`
(activations: bipolar integers, f32 scale), `bitmodN[gG]` and `wN[gG]nK:M` (K of M weights kept,
for M of 16 the same ones in 16 rows: FlightLLM, arXiv:2401.03868; all of them is `wN[gG]`).
"""

import re

NAMED: dict[str, str] = {
    "f32": "f32",
    "f16": "f16",
    "bf16": "bf16",
    "df11": "bf16.huffman",
    "q1_0": "bip1:g=128:s=f16:store=q1_0",
    "q4_0": "i4:g=32:s=f16:store=q4_0",
    "q4_1": "u4:g=32:s=f16:z=min.f16:store=q4_1",
    "q5_0": "i5:g=32:s=f16:store=q5_0",
    "q5_1": "u5:g=32:s=f16:z=min.f16:store=q5_1",
    "q8_0": "i8.narrow:g=32:s=f16:store=q8_0",
    "q2_k": "u2:g=16x16:s=u4*f16:z=neg.u4*f16:store=q2_k",
    "q3_k": "i3:g=16x16:s=u6-32*f16:store=q3_k",
    "q4_k": "u4:g=32x8:s=u6*f16:z=neg.u6*f16:store=q4_k",
    "q5_k": "u5:g=32x8:s=u6*f16:z=neg.u6*f16:store=q5_k",
    "q6_k": "i6:g=16x16:s=u8-128*f16:store=q6_k",
    "tq1_0": "ternary:g=256:s=f16:store=tq1_0",
    "tq2_0": "ternary:g=256:s=f16:store=tq2_0",
    "iq4_nl": "iq4_nl:g=32:s=f16:store=iq4_nl",
    "iq4_xs": "iq4_nl:g=32x8:s=u6-32*f16:store=iq4_xs",
    "iq1_s": "grid.iq1_s:g=32x8:s=u3*f16:store=iq1_s",
    "iq1_m": "grid.iq1_m:g=16x16:s=u3*f16:store=iq1_m",
    "iq2_xxs": "grid.iq2_xxs:g=32x8:s=u4*f16:store=iq2_xxs",
    "iq2_xs": "grid.iq2_xs:g=16x16:s=u4*f16:store=iq2_xs",
    "iq2_s": "grid.iq2_s:g=16x16:s=u4*f16:store=iq2_s",
    "iq3_xxs": "grid.iq3_xxs:g=32x8:s=u4*f16:store=iq3_xxs",
    "iq3_s": "grid.iq3_s:g=32x8:s=u4*f16:store=iq3_s",
    "mxfp4": "e2m1:g=32:s=e8m0:store=mxfp4",
    "nvfp4": "e2m1:g=16x4:s=e4m3:store=nvfp4",
    "nvfp4_scaled": "e2m1:g=16:s=e4m3*tensor",
    "mxfp6_e2m3": "e2m3:g=32:s=e8m0",
    "mxfp6_e3m2": "e3m2:g=32:s=e8m0",
    "mxfp8_e4m3": "e4m3:g=32:s=e8m0",
    "mxfp8_e5m2": "e5m2:g=32:s=e8m0",
    "fp8_e4m3": "e4m3:g=row:s=f32",
    "fp8_e5m2": "e5m2:g=row:s=f32",
    "fp4": "e2m1:g=32:s=f16",
    "nf4": "nf4:g=64:s=f32",
    "bnb_fp4": "bnb_fp4:g=64:s=f32",
    "b1_58": "ternary:g=row:s=f32",
    "spqr3": "u3:g=16x16.tile:s=u3*f16+min:z=scaled.u3*f16+min:fix=outliers.csr.10.f16",
}

SPELLED = {spelling: name for name, spelling in NAMED.items()}
BITMOD_SPECIALS = {3: "3.0,-3.0,6.0,-6.0", 4: "5.0,-5.0,8.0,-8.0"}
PATTERNS = "wN[gG][z|m], wN[gG]nK:M, aN[gG], abN[gG], bitmodN[gG]"

_PATTERN = re.compile(r"(w|ab?|bitmod)([1-9]|16)(?:g([1-9][0-9]{0,6}))?([zm]?)")
_SPARSE = re.compile(r"w([1-8])(?:g([1-9][0-9]{0,6}))?n([1-9][0-9]{0,2}):([1-9][0-9]{0,3})")
_LONG_SPARSE = re.compile(
    r"(?:i|bip)(?P<n>[1-8]):g=(?P<g>row|[0-9]+):s=f16:sparse=(?P<k>[0-9]+)of(?P<m>[0-9]+)"
    r"(?:\.block16)?"
)
_LONG_UNIFORM = re.compile(
    r"(?P<kind>[iu]|bip)(?P<n>[1-8])(?P<narrow>\.narrow)?:g=(?P<g>row|[0-9]+)"
    r":s=(?P<s>f16|f32)(?::z=(?P<z>min\.f16|int\.u[1-8]))?"
)
_LONG_DIGITS = re.compile(r"i8x2:g=(row|[0-9]+):s=f32")
_LONG_BITMOD = re.compile(r"bitmod([34])\[(.*)\]:g=(row|[0-9]+):s=f16")


def expand(spec: str) -> str:
    """The spelling of a short name; `spec` itself if it is not one."""
    if spec in NAMED:
        return NAMED[spec]
    sparse = _SPARSE.fullmatch(spec)
    if sparse is not None:
        bits, group, keep, of = sparse.groups()
        block = ".block16" if of == "16" else ""
        dense = _expand_weight(bits, f"g={group or 'row'}", "")
        if keep == of:
            return dense
        return f"{dense}:sparse={keep}of{of}{block}"
    match = _PATTERN.fullmatch(spec)
    if match is None:
        return spec
    kind, bits, group, zero = match.groups()
    grouped = f"g={group or 'row'}"
    if zero and kind != "w":
        return spec
    if bits == "16":
        return f"i8x2:{grouped}:s=f32" if kind == "a" else spec
    if kind == "w":
        return _expand_weight(bits, grouped, zero)
    if kind == "a":
        return f"i{bits}.narrow:{grouped}:s=f32"
    if kind == "ab":
        return f"bip{bits}:{grouped}:s=f32"
    specials = BITMOD_SPECIALS.get(int(bits))
    grouped = grouped if group else "g=128"
    return f"bitmod{bits}[{specials}]:{grouped}:s=f16" if specials else spec


def _expand_weight(bits: str, grouped: str, zero: str) -> str:
    if zero == "z":
        return f"u{bits}:{grouped}:s=f16:z=int.u{bits}"
    if zero == "m":
        return f"u{bits}:{grouped}:s=f16:z=min.f16"
    return f"{'bip' if bits == '1' else 'i'}{bits}:{grouped}:s=f16"


def shorten(spelling: str) -> str:
    """The short name of a canonical spelling; the spelling itself if it has none."""
    if spelling in SPELLED:
        return SPELLED[spelling]
    for name in _candidates(spelling):
        if expand(name) == spelling:
            return name
    return spelling


def _candidates(spelling: str) -> tuple[str, ...]:
    """Pattern names that may expand to `spelling`."""
    bitmod = _LONG_BITMOD.fullmatch(spelling)
    if bitmod is not None:
        bits, _, group = bitmod.groups()
        return (f"bitmod{bits}", f"bitmod{bits}g{group}")
    digits = _LONG_DIGITS.fullmatch(spelling)
    if digits is not None:
        return ("a16", f"a16g{digits[1]}")
    sparse = _LONG_SPARSE.fullmatch(spelling)
    if sparse is not None:
        group = "" if sparse["g"] == "row" else f"g{sparse['g']}"
        return (f"w{sparse['n']}{group}n{sparse['k']}:{sparse['m']}",)
    match = _LONG_UNIFORM.fullmatch(spelling)
    if match is None:
        return ()
    group = "" if match["g"] == "row" else f"g{match['g']}"
    stem = f"{match['n']}{group}"
    return (f"w{stem}", f"w{stem}z", f"w{stem}m", f"a{stem}", f"ab{stem}")
