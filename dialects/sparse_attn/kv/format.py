"""What a key-value cache holds of a token, as data: two number formats and where they begin.

    kv = "f32" | "f16" | "bf16" | "kvN" [ "(" PAGE ")" ] [ "-i8" ]
       | "kiviN" [ "(" GROUP [ "," RECENT [ "," PINNED ] ] ")" ] [ "-i8" ]
       | "gearN" [ "(" RANK [ "," OUTLIERS [ "," GROUP [ "," RECENT [ "," PINNED ] ] ] ] ")" ]
       | "lowrank" [ "(" RANK ")" ]

Keys and values of a head are matrices [tokens, features], each in a format of `lowbit`. A coded
cache is cut into pages of tokens, and the tokens of a page are rounded together once none of them
is recent any more. So a query sees what tokens of before its *boundary* mean as codes, and the
tokens from there on, itself among them, as they are (as f16):

    boundary(query) = max(0, query - recent) // page * page

`kvN` (N of 8, 4, 2) has a scale and a minimum for each channel of a page of keys, and for each
token's values. `kiviN` (KIVI, arXiv:2402.02750) has them for GROUP tokens of a channel of keys and
for GROUP channels of a token's values, and keeps RECENT tokens or more as they are, and the
first PINNED ones of the text, which every token looks at (attention sinks, arXiv:2309.17453).
`gearN` (GEAR) adds to KIVI's codes a product of RANK, and
with OUTLIERS of 1 the two outliers of each channel of a page of keys and of each token's values,
see `corrections`. `lowrank` has no codes of keys: those of a page are the product of two matrices
of RANK when they are read, and values are as in `kv8` (ShadowKV, arXiv:2410.21465, factors the keys
of a whole text before their rotation, and leaves values to the host's memory). With "-i8" codes are
multiplied as the integers that they are, see `products`.
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
from nybble.dialects.sparse_attn.kv.corrections import ENDS, Correction, correction
from nybble.dialects.sparse_attn.kv.errors import KvError

Floats = npt.NDArray[np.float32]
KEYS, VALUES = "keys", "values"
SIDES = (KEYS, VALUES)
PAGE, GROUP, RECENT = 64, 32, 128
"""What is taken where a text names none: KIVI's own group and recent tokens."""
RANK, OUTLIERS = 4, 1
"""GEAR's own rank."""
KEY_RANK, MOST_RANK = 24, 64
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
    "mla": "one latent of all heads (multi-head latent attention, arXiv:2405.04434)",
    "shared": "the cache of another layer (depth sharing, arXiv:2405.12981)",
}
"""Families that the spelling is reserved for; nothing computes them yet."""
NAMES = (
    "f32, f16, bf16, kv8, kv4, kv2, kvN(page), kivi4, kivi2, kiviN(group,recent,pinned); kvN-i8, "
    "kiviN-i8; gear4, gear2, gearN(rank,outliers,group,recent,pinned); lowrank, lowrank(rank)"
)
_TEXT = re.compile(r"([a-z]+)([0-9]*)(?:\(([0-9, ]+)\))?(-i8)?")


@dataclass(frozen=True)
class KvFormat:
    """A format of both caches of a layer.

    name: its one spelling. specs: of keys and values in `lowbit`, each for a matrix [tokens,
    features]. page: tokens that are rounded together, 0 where nothing is rounded to codes. recent:
    tokens before a query that it sees as they are, at least. exact: type of what is not coded.
    pinned: tokens at the beginning that stay as they are. spread: of the range of a group of
    keys, how much its levels take. integers: whether codes are multiplied by integers. rank: of
    what is added to codes. outliers: at each end of a line of numbers that are rounded together.
    """

    name: str
    specs: tuple[str, str]
    page: int = 0
    recent: int = 0
    exact: str = "f16"
    pinned: int = 0
    spread: float = 1.0
    integers: bool = False
    rank: int = 0
    outliers: int = 0

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
        """Of a code, or of an element where there are none."""
        return self.side(VALUES).element.bits

    def has_codes(self, side: str) -> bool:
        """Whether keys or values have codes, and not factors alone."""
        return self.is_coded and self.specs[SIDES.index(side)] != self.exact

    def corrected(self, side: str) -> bool:
        """Whether something is added to the codes of keys or values."""
        return bool(self.outliers or self.rank) and (side == KEYS or self.has_codes(KEYS))

    @property
    def is_corrected(self) -> bool:
        """Whether something is added to codes of either side."""
        return self.corrected(KEYS)

    def sizes(self, side: str, head_dim: int) -> tuple[int, int]:
        """Lines of a page's matrix, and numbers of a line: see `corrections`."""
        return (head_dim, self.page) if side == KEYS else (self.page, head_dim)

    def correction_size(self, side: str, head_dim: int) -> int:
        """Numbers of f16 that the correction of a page takes."""
        if not self.corrected(side):
            return 0
        lines, length = self.sizes(side, head_dim)
        return self.rank * (lines + length) + 2 * ENDS * self.outliers * lines

    def value_group(self, head_dim: int) -> int:
        """Features of a token's values that share a scale."""
        return self.side(VALUES).group_size(head_dim)

    @property
    def key_group(self) -> int:
        """Tokens of a channel of keys that share a scale; those of a page without codes."""
        size = self.side(KEYS).grouping.size if self.has_codes(KEYS) else self.page
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
        group = {KEYS: self.key_group, VALUES: self.value_group(head_dim)}
        coded = [one for one in SIDES if self.has_codes(one)]
        codes = sum(head_dim * self.bits + 32 * head_dim / group[one] for one in coded)
        return codes + sum(16 * self.correction_size(one, head_dim) for one in SIDES) / self.page

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
            whole[:, :tokens] = self.meant(side, rows).reshape(heads, tokens, dim)
        return whole

    def meant(self, side: str, rows: Floats) -> Floats:
        """What is read of f32 [tokens, features], all of whose pages are whole."""
        if not self.corrected(side):
            return self.coded(side, rows).dequantize()
        coded, fix = self.encoded(side, rows)
        found = self._matrix(side, coded.dequantize()) if coded else np.float32(0)
        return self._rows(side, found + fix.added())

    def encoded(self, side: str, rows: Floats) -> tuple[Weight | None, Correction]:
        """Codes of such rows, if there are any, and what is added to them, page after page."""
        if not self.has_codes(side):
            return None, correction(self._matrix(side, rows), np.zeros_like, self.rank, 0)[1]

        def decoded(matrix: Floats) -> Floats:
            return self._matrix(side, self.coded(side, self._rows(side, matrix)).dequantize())

        made, fix = correction(self._matrix(side, rows), decoded, self.rank, self.outliers)
        return self.coded(side, self._rows(side, made)), fix

    def _matrix(self, side: str, rows: Floats) -> Floats:
        pages = rows.reshape(-1, self.page, rows.shape[-1])
        return pages.swapaxes(1, 2) if side == KEYS else pages

    def _rows(self, side: str, pages: Floats) -> Floats:
        pages = pages.swapaxes(1, 2) if side == KEYS else pages
        return np.ascontiguousarray(pages).reshape(-1, pages.shape[-1])

    def coded(self, side: str, rows: Floats) -> Weight:
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
        case "gear", "4" | "2":
            return _gear(name, int(found[2]), numbers)
        case "lowrank", "":
            return _low_rank(name, numbers)
        case _:
            raise KvError(f"unknown format of a cache '{text[:60]}'", accepted=NAMES)


def _with_integers(kv: KvFormat) -> KvFormat:
    if not kv.is_coded:
        raise KvError(f"{kv} has no codes to multiply as integers", accepted="kvN-i8, kiviN-i8")
    if kv.rank or kv.outliers:
        raise KvError(f"{kv} adds to its codes and is read as floats", accepted="kvN-i8, kiviN-i8")
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


def _gear(name: str, bits: int, numbers: tuple[int, ...]) -> KvFormat:
    defaults = RANK, OUTLIERS, GROUP, RECENT, PINNED
    rank, outliers, *places = _numbers(name, numbers, defaults)
    _check_rank(name, rank, 0 if outliers else 1)
    if outliers not in (0, 1):
        raise KvError(f"{outliers} outliers at each end of a line in {name}", accepted="0 or 1")
    kivi = _kivi(f"kivi{bits}", bits, tuple(places))
    shown = (rank, outliers, *places)
    while shown and shown[-1] == defaults[len(shown) - 1]:
        shown = shown[:-1]
    spelled = f"{name}({','.join(map(str, shown))})" if shown else name
    return replace(kivi, name=spelled, rank=rank, outliers=outliers)


def _low_rank(name: str, numbers: tuple[int, ...]) -> KvFormat:
    (rank,) = _numbers(name, numbers, (KEY_RANK,))
    _check_rank(name, rank, 1)
    spelled = name if rank == KEY_RANK else f"{name}({rank})"
    return KvFormat(spelled, ("f16", _codes(8, "row")), PAGE, rank=rank)


def _check_rank(name: str, rank: int, least: int) -> None:
    if not least <= rank <= MOST_RANK:
        raise KvError(f"a rank of {rank} in {name}", accepted=f"{least} to {MOST_RANK}")


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
