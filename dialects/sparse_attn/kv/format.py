"""What a key-value cache holds of a token, as data: two number formats and where they begin.

    kv = "f32" | "f16" | "bf16" | "kvN" [ "(" PAGE ")" ] [ "-i8" ]
       | "kiviN" [ "(" GROUP [ "," RECENT [ "," PINNED ] ] ")" ] [ "-i8" ]

Keys and values of a head are matrices [tokens, features], each in a format of `lowbit`. A coded
cache is cut into pages of tokens, and the tokens of a page are rounded together once none of them
is recent any more. So a query sees what tokens of before its *boundary* mean as codes, and the
tokens from there on, itself among them, as they are (as f16):

    boundary(query) = max(0, query - recent) // page * page

`kvN` (N of 8, 4, 2) has a scale and a minimum for each channel of a page of keys, and for each
token's values. `kiviN` (KIVI, arXiv:2402.02750) has them for GROUP tokens of a channel of keys and
for GROUP channels of a token's values, and keeps RECENT tokens or more as they are, and the
first PINNED ones of the text, which every token looks at (attention sinks, arXiv:2309.17453).
With "-i8" codes are multiplied as the integers that they are, and queries times the scales of a
group of tokens are rounded to 8 bits for that: see `products`.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Rounding, Weight
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.sparse_attn.kv.errors import KvError

KEYS, VALUES = "keys", "values"
SIDES = (KEYS, VALUES)
PAGE, GROUP, RECENT = 64, 32, 128
"""What is taken where a text names none: KIVI's own group and recent tokens."""
PINNED = 64
"""First tokens that are kept as they are where a text names a family of KIVI alone."""
SPREAD = {8: 1.0, 4: 1.0, 2: 0.8}
"""What the ranges of KIVI's keys are multiplied by.

Four levels over all of a group's range are too far apart:
of 32 normally distributed numbers the extremes lie at 2.07 deviations, while the outer levels of
least squared error lie at 1.49 (Max, Quantizing for minimum distortion, 1960). Groups of keys that
are not normally distributed want more of their range than that."""
PAGES = (16, 32, 64, 128)
MOST_RECENT = 1 << 20
INTEGERS = "-i8"
EXACT = ("f32", "f16", "bf16")
LATER = {
    "gear": "a low-rank and a sparse correction of the codes (GEAR, arXiv:2403.05527)",
    "lowrank": "keys of low rank, made again as they are read (ShadowKV, arXiv:2410.21465)",
    "mla": "one latent of all heads (multi-head latent attention, arXiv:2405.04434)",
    "shared": "the cache of another layer (depth sharing, arXiv:2405.12981)",
}
"""Families that the spelling is reserved for; nothing computes them yet."""
NAMES = (
    "f32, f16, bf16, kv8, kv4, kv2, kvN(page), kivi4, kivi2, kiviN(group,recent,pinned); kvN-i8, "
    "kiviN-i8"
)
_TEXT = re.compile(r"([a-z]+)([0-9]*)(?:\(([0-9, ]+)\))?(-i8)?")


@dataclass(frozen=True)
class KvFormat:
    """A format of both caches of a layer.

    name: its one spelling. specs: of keys and values in `lowbit`, each for a matrix [tokens,
    features]. page: tokens that are rounded together, 0 where nothing is rounded to codes. recent:
    tokens before a query that it sees as they are, at least. exact: type of what is not coded.
    pinned: tokens at the beginning that stay as they are. spread: of the range of a group of
    keys, how much its levels take. integers: whether codes are multiplied by integers.
    """

    name: str
    specs: tuple[str, str]
    page: int = 0
    recent: int = 0
    exact: str = "f16"
    pinned: int = 0
    spread: float = 1.0
    integers: bool = False

    def __str__(self) -> str:
        return self.name

    def side(self, side: str) -> formats.Format:
        """The number format of keys or values."""
        return formats.get(self.specs[SIDES.index(side)])

    @property
    def is_coded(self) -> bool:
        """Whether tokens become codes."""
        return self.page > 0

    @cached_property
    def bits(self) -> int:
        """Of an element."""
        return self.side(KEYS).element.bits

    def value_group(self, head_dim: int) -> int:
        """Features of a token's values that share a scale."""
        return self.side(VALUES).group_size(head_dim)

    @property
    def key_group(self) -> int:
        """Tokens of a channel of keys that share a scale."""
        size = self.side(KEYS).grouping.size
        assert size is not None
        return size

    def boundary(self, query: int) -> int:
        """The first token that a query sees as it is."""
        return max(0, query - self.recent) // self.page * self.page if self.is_coded else 0

    def boundaries(self, queries: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
        """`boundary` of each of these."""
        return np.maximum(0, queries - self.recent) // max(self.page, 1) * self.page

    def is_code(
        self, keys: npt.NDArray[np.int_], boundaries: npt.NDArray[np.int_]
    ) -> npt.NDArray[np.bool_]:
        """Whether a key is seen as its codes by a query of that boundary."""
        return (keys < boundaries) & (keys >= self.pinned)

    def room(self, rows: int) -> int:
        """Tokens that are kept as they are where one call appends up to `rows`; 0 if all are."""
        return self.recent + self.page + rows if self.is_coded else 0

    def bits_per_token(self, head_dim: int) -> float:
        """Of keys and values of a head, scales and minima included."""
        if not self.is_coded:
            return 2.0 * head_dim * self.bits
        scales = head_dim / self.key_group + head_dim / self.value_group(head_dim)
        return 2.0 * head_dim * self.bits + 32 * scales

    def check(self, context: int, head_dim: int) -> None:
        """Raise KvError unless a cache of so many tokens and features can have this format."""
        if not self.is_coded:
            return
        group = self.side(VALUES).grouping.size
        if group is not None and head_dim % group:
            fitting = [str(one) for one in PAGES if head_dim % one == 0]
            raise KvError(
                f"{self} has groups of {group} features of heads of {head_dim}",
                accepted=f"groups of {', '.join(fitting) or 'none: kvN'}",
            )
        if self.pinned >= context:
            raise KvError(
                f"{self} keeps the first {self.pinned} tokens of a context of {context}",
                accepted=f"less than {context}",
            )
        if self.recent + self.page > context:
            raise KvError(
                f"{self} keeps {self.recent} tokens as they are and rounds {self.page} at once, "
                f"of a context of {context}",
                accepted=f"at most {max(context - self.page, 0)} recent tokens",
            )

    def check_span(self, span: int | None) -> None:
        """Raise KvError where no query that sees its `span` last keys, itself among them, reaches
        a code. None: it sees all keys."""
        if not self.is_coded or span is None or span > self.recent + 1:
            return
        raise KvError(
            f"{self} keeps {self.recent} tokens before a query as they are, and no query sees "
            f"more than {span - 1} of them, so that no code would be read",
            accepted=f"a mask that reaches {self.recent + 1} tokens back, fewer recent tokens, "
            f"or {self.exact}",
        )

    def rounded(self, rows: npt.NDArray[np.float32]) -> KvArray:
        """What tokens are before they become codes, of f32 of any shape."""
        if self.exact == "bf16":
            return round_to("bf16", rows)
        return rows.astype(np.float32) if self.exact == "f32" else rows.astype(np.float16)

    def decoded(self, side: str, cache: KvArray, tokens: int) -> npt.NDArray[np.float32]:
        """What the codes of the first `tokens` of [heads, context, features] mean; 0 after them."""
        heads, _, dim = cache.shape
        whole = np.zeros(cache.shape, np.float32)
        if tokens:
            rows = np.ascontiguousarray(cache[:, :tokens], np.float32).reshape(-1, dim)
            whole[:, :tokens] = self.coded(side, rows).dequantize().reshape(heads, tokens, dim)
        return whole

    def coded(self, side: str, rows: npt.NDArray[np.float32]) -> Weight:
        """The codes of f32 [tokens, features], all of whose pages are whole."""
        return self.side(side).quantize(rows, Rounding(spread=self.spread_of(side)))

    def spread_of(self, side: str) -> float:
        """What the range of a group is multiplied by; of values it is taken whole."""
        return self.spread if side == KEYS else 1.0


@lru_cache(maxsize=64)
def parse(text: str) -> KvFormat:
    """The format that a text spells; raises KvError."""
    found = _TEXT.fullmatch(text.strip())
    name = f"{found[1]}{found[2]}" if found else text
    if found is None:
        raise KvError(f"unknown format of a cache '{text[:60]}'", accepted=NAMES)
    if found[4]:
        return _with_integers(parse(text.strip().removesuffix(INTEGERS)))
    if name in EXACT and found[3] is None:
        return KvFormat(name, (name, name), exact=name)
    if found[1] in LATER:
        raise KvError(f"no kernel computes '{text[:60]}', {LATER[found[1]]}", accepted=NAMES)
    numbers = tuple(int(one) for one in found[3].split(",") if one.strip()) if found[3] else ()
    match found[1], found[2]:
        case "kv", "8" | "4" | "2":
            return _paged(name, int(found[2]), numbers)
        case "kivi", "4" | "2":
            return _kivi(name, int(found[2]), numbers)
        case _:
            raise KvError(f"unknown format of a cache '{text[:60]}'", accepted=NAMES)


def _with_integers(kv: KvFormat) -> KvFormat:
    if not kv.is_coded:
        raise KvError(f"{kv} has no codes to multiply as integers", accepted="kvN-i8, kiviN-i8")
    return replace(kv, name=f"{kv.name}{INTEGERS}", integers=True)


def _paged(name: str, bits: int, numbers: tuple[int, ...]) -> KvFormat:
    (page,) = _numbers(name, numbers, (PAGE,))
    _check_page(name, page, "a page")
    spelled = name if page == PAGE else f"{name}({page})"
    return KvFormat(spelled, (_codes(bits, f"{page}.rows"), _codes(bits, "row")), page)


def _kivi(name: str, bits: int, numbers: tuple[int, ...]) -> KvFormat:
    group, recent, pinned = _numbers(name, numbers, (GROUP, RECENT, 0 if numbers else PINNED))
    page = max(PAGE, group)
    _check_page(name, group, "a group")
    if recent % group or recent > MOST_RECENT:
        raise KvError(
            f"{recent} recent tokens of {name} with groups of {group}",
            accepted=f"a multiple of {group}",
        )
    if pinned % page or pinned > MOST_RECENT:
        raise KvError(
            f"{pinned} pinned tokens of {name} with pages of {page}",
            accepted=f"a multiple of {page}",
        )
    spelled = f"{name}({group},{recent}{f',{pinned}' if pinned else ''})"
    if (group, recent, pinned) == (GROUP, RECENT, PINNED):
        spelled = name
    specs = _codes(bits, f"{group}.rows"), _codes(bits, str(group))
    return KvFormat(spelled, specs, page, recent, pinned=pinned, spread=SPREAD[bits])


def _codes(bits: int, grouping: str) -> str:
    return f"u{bits}:g={grouping}:s=f16:z=min.f16"


def _numbers(name: str, given: tuple[int, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    if len(given) > len(default):
        raise KvError(f"{name} of {len(given)} numbers", accepted=f"at most {len(default)}")
    return (*given, *default[len(given) :])


def _check_page(name: str, size: int, what: str) -> None:
    if size not in PAGES:
        said = ", ".join(map(str, PAGES))
        raise KvError(f"{what} of {size} in {name}", accepted=f"{what} of {said} tokens")
