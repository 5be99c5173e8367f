"""What is measured: products of low-bit weights by format and tokens, attention by cache format.

The order is that of importance: when time is up, the rest is left out.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

LLAMA = 8192
"""Rows and columns of the products: those of published figures (one H100, 8192 x 8192)."""
MAIN_FORMATS = ("w4g128", "w2g128")
MORE_FORMATS = ("w1g128", "b1_58", "w3g128", "w8", "q4_0", "q4_1", "mxfp4", "nf4")
_BITS = {"w1": 1, "b1_58": 2, "w2": 2, "w3": 3, "w4": 4, "q4_": 4, "mxfp4": 4, "nf4": 4, "w8": 8}
GROUPED_FORMATS = ("w1g128", "mxfp4")
FEWEST_GROUPED = 32
"""Tokens from which on products by warpgroups are timed, too."""
FEW, MIDDLE, MANY = (1, 16), (4, 32, 64, 128), (256, 1024, 2048)

_SUB = {"subtract": True}
_SMALL = {"warps": 4, "stages": 3, "blocks_per_sm": 2}
_SCALED = {"warps": 8, "subtract": True, "scale": True}
GROUPS = {"warpgroups": {"warpgroups": True}}
"""Products by warpgroups, beside those by warps; other fields are those of `Tuning`."""
TUNINGS: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "w16x4": {"warps": 16, "split": 4},
        "w16x16": {"warps": 16, "split": 16},
        "w16x8s6": {"warps": 16, "split": 8, "stages": 6},
        "w16x8sub": {"warps": 16, "split": 8, **_SUB},
        "w8x4b2": {"warps": 8, "split": 4, "blocks_per_sm": 2},
        "w16x1": {"warps": 16},
        "w4s3b2": _SMALL,
        "w4s3b2x2": {**_SMALL, "split": 2},
        "w4s3b2x4": {**_SMALL, "split": 4},
        "w4s3b3": {**_SMALL, "blocks_per_sm": 3},
        "w4s3b4x2": {**_SMALL, "blocks_per_sm": 4, "split": 2},
        "w4s3b2e": {**_SMALL, "evict_first": True},
        "w4s3b2sub": {**_SMALL, **_SUB},
    },
    16: {
        "w12x4": {"warps": 12, "split": 4, **_SUB},
        "w12x1": {"warps": 12, **_SUB},
        "w8x2s6": {"warps": 8, "split": 2, "stages": 6, **_SUB},
        "w8x4s6": {"warps": 8, "split": 4, "stages": 6, **_SUB},
        "w4s3b2": {**_SMALL, **_SUB},
        "w4s3b2x2": {**_SMALL, "split": 2, **_SUB},
        "w4s3b2x4": {**_SMALL, "split": 4, **_SUB},
        "w4s3b2keep": _SMALL,
    },
    64: {
        "x2": {**_SCALED, "split": 2},
        "s6": {**_SCALED, "stages": 6},
        "b2": {**_SCALED, **_SMALL},
        **GROUPS,
        "warpgroups2": {**_SCALED, "stages": 2, "warpgroups": True},
    },
}
"""Tokens -> fields of `Tuning`, to be timed beside the usual ones."""


@dataclass(frozen=True)
class Case:
    """A problem. variants: ways to build our kernel, timed side by side."""

    id: str
    kind: str
    spec: dict[str, Any]
    quick: bool = False
    variants: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    seconds: float = 30.0

    def as_json(self) -> dict[str, Any]:
        """As it lies in the folder."""
        return asdict(self)


def product(
    format: str, tokens: int, rows: int = LLAMA, cols: int = LLAMA, *, quick: bool = False,
    variants: dict[str, dict[str, Any]] | None = None, activations: str = "f16",
) -> Case:  # fmt: skip
    """A product y [tokens, rows] = x [tokens, cols] @ W.T."""
    spec = {"format": format, "rows": rows, "cols": cols, "tokens": tokens}
    spec |= {"activations": activations}
    suffix = "" if activations == "f16" else f"/{activations}"
    name = f"{format}{suffix}/m{tokens}"
    if (rows, cols) != (LLAMA, LLAMA):
        name += f"/{rows}x{cols}"
    return Case(name, "product", spec, quick, variants or {})


SHAPES = ((32, 4, 2), (16, 8, 1))
"""Splits for 8 heads, warps, blocks of a multiprocessor: which is best, is measured."""


def decode(cache: str, context: int, *, quick: bool = False, **spec: Any) -> Case:
    """A decode attention of Llama 3 8B's shape: 8 heads of 128, each for 4 query heads.

    density, of `spec`: the part of the blocks that a list of blocks names.
    """
    full = {"sequences": 1, "kv_heads": 8, "group": 4, "head_dim": 128, "context": context}
    full |= {"scale": 128**-0.5, "cache": cache, **spec}
    full |= {"key_group": 32} if cache == "kv8" else {}
    name = "/".join(f"{key}{value}" for key, value in spec.items() if key != "scale")
    variants: dict[str, dict[str, Any]] = {}
    for splits, warps, blocks in SHAPES:
        some = max(1, splits * 8 // (full["sequences"] * full["kv_heads"]))
        variants[f"s{some}w{warps}b{blocks}"] = {"splits": some, "warps": warps, "blocks": blocks}
    if "block" not in spec:
        usual = next(iter(variants.values()))
        variants["unified"] = usual | {"softmax": "unified", "anchor": 4.0}
    return Case(f"decode/{cache}/{context}/{name}".rstrip("/"), "decode", full, quick, variants)


def prefill(tokens: int, *, quick: bool = False, **spec: Any) -> Case:
    """A causal prefill of Llama 3 8B's shape; density as in `decode`."""
    full = {"sequences": 1, "kv_heads": 8, "group": 4, "head_dim": 128, "context": tokens}
    full |= {"tokens": tokens, "scale": 128**-0.5, **spec}
    density = f"/density{spec['density']}" if "density" in spec else ""
    return Case(f"prefill/f16/{tokens}{density}", "prefill", full, quick)


def every() -> list[Case]:
    """All cases, the most important first."""
    cases = [product(one, m, quick=True, variants=TUNINGS[m]) for one in MAIN_FORMATS for m in FEW]
    cases += [decode(cache, 32768, quick=cache != "kv8") for cache in ("f16", "kv4", "kv2", "kv8")]
    cases += [product("b1_58", m, quick=m == 1) for m in FEW]
    cases += [
        product(one, m, variants=TUNINGS.get(m, GROUPS if m >= FEWEST_GROUPED else None))
        for one in MAIN_FORMATS
        for m in MIDDLE
    ]
    cases += [product("w4g128", 1, 28672, 8192), product("w2g128", 1, 28672, 8192)]
    cases += [prefill(4096, quick=True), prefill(16384)]
    cases += [decode("f16", 32768, block=64, density=part) for part in (0.5, 0.125)]
    cases += [prefill(16384, block_lists=True, density=part) for part in (0.5, 0.125)]
    cases += [product(one, m, variants=GROUPS) for m in MANY for one in MAIN_FORMATS]
    cases += [product(one, 1024, variants=GROUPS) for one in GROUPED_FORMATS]
    cases += [decode("f16", 8192, sequences=8), decode("bf16", 32768), decode("f16", 4096)]
    cases += [product(one, m) for one in MORE_FORMATS if one != "b1_58" for m in FEW]
    return cases


def tiny() -> list[Case]:
    """Cases small enough for the simulator: a test of this program, not of the kernels."""
    small = {"head_dim": 64, "kv_heads": 1, "scale": 0.125}
    dense, sparse = decode("f16", 128, **small), decode("f16", 128, block=32, density=0.5, **small)
    variants = {"s2w2": {"splits": 2, "warps": 2, "blocks": 1}}
    attention = [Case(one.id, one.kind, one.spec, True, variants) for one in (dense, sparse)]
    some = {"context": 128, "kv_heads": 1, "group": 2, "head_dim": 64, "quick": True}
    attention += [prefill(100, **some), prefill(128, block_lists=True, density=0.5, **some)]
    grouped = product("w4g128", 16, 64, 256, quick=True, variants=GROUPS)
    return [product("w4g128", 1, 64, 256, quick=True), grouped, *attention]


def bits_of(format: str) -> int | None:
    """Bits of a code of the format, None if no peer has such weights."""
    return next((bits for prefix, bits in _BITS.items() if format.startswith(prefix)), None)
