"""What a key-value cache holds of a token, as data: two number formats and where they begin.

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
multiplied as the integers that they are, see `products`. With "-h" keys, and with them queries,
are turned by a Hadamard transform of each head, which changes no product of the two and spreads
channels that are larger than others (QuaRot, arXiv:2404.00456): `quantize-cache` puts a
`fused.hadamard` before what takes them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import gcd

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
LARGEST_BLOCK = 64
"""Keys of a block of attention where nothing wants smaller ones."""
PAGES = (16, 32, 64, 128)


@dataclass(frozen=True)
class KvFormat:
    """A format of both caches of a layer.

    name: its one spelling. specs: of keys and values in `lowbit`, each for a matrix [tokens,
    features]. page: tokens that are rounded together, 0 where nothing is rounded to codes. recent:
    tokens before a query that it sees as they are, at least. exact: type of what is not coded.
    pinned: tokens at the beginning that stay as they are. spread: of the range of a group of
    keys, how much its levels take. integers: whether codes are multiplied by integers. rank: of
    what is added to codes. outliers: at each end of a line of numbers that are rounded together.
    turned: whether keys and queries come here after a Hadamard transform of each head.
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
    turned: bool = False

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
        if self.turned and head_dim & (head_dim - 1):
            raise KvError(
                f"{self} turns heads of {head_dim} features by a Hadamard transform",
                accepted=f"heads of a power of two, or {self.name.replace('-h', '')}",
            )
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


def block_of(page: int, sizes: Iterable[int]) -> int:
    """Keys of a block: whole ones make a page, if there are any, and every entry of a list."""
    return gcd(LARGEST_BLOCK, page, *sizes)
