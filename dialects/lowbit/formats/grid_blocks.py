"""Blocks of the ggml types whose weights come from vector codebooks: IQ1, IQ2 and IQ3.

A block of 256 weights gives a codebook index per vector, an odd number per run of weights under a
float, and either a sign per weight or a shift per vector:
`base * odd * (grid[index] + shift) * sign`.
The codebooks themselves are read from the `gguf` package when first needed. Reading only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, U8

_BLOCK = 256
_SHIFT = np.float32(0.125)
Index = npt.NDArray[np.uint16]
Fields = dict[str, U8]


@dataclass(frozen=True, eq=False)
class Vectors:
    """What one type's bytes say; n blocks.

    index: u16 [n, vectors]; base: f32 [n, 1]; odd: u8 [n, runs]; negative: u8 0/1 [n, 256] or None;
    shift: f32 [n, vectors] or None.
    """

    index: Index
    base: F32
    odd: U8
    negative: U8 | None = None
    shift: F32 | None = None


@dataclass(frozen=True)
class GridBlock:
    """One type: its name in gguf, its fields (name, bytes), what reads them, and the whole numbers
    that its codebook, signs and shifts make.
    """

    codebook: str
    fields: tuple[tuple[str, int], ...]
    read: Callable[[Fields], Vectors]
    values: tuple[int, ...]
    weights: int = _BLOCK

    @property
    def bytes(self) -> int:
        """Bytes of one block."""
        return sum(size for _, size in self.fields)

    def integers(self, blocks: U8) -> tuple[F32, F32, U8]:
        """u8 [n, bytes] to whole numbers f32 [n, 256], each one of `values`, and their scales: a
        float f32 [n, 1] times a number u8 [n, runs].
        """
        fields: Fields = {}
        start = 0
        for name, size in self.fields:
            fields[name] = blocks[:, start : start + size]
            start += size
        with np.errstate(invalid="ignore", over="ignore"):
            vectors = self.read(fields)
            grid, base = codebook(self.codebook)[vectors.index], vectors.base
            if vectors.shift is not None:
                grid = (grid + vectors.shift[:, :, None]) / _SHIFT
                base = base * _SHIFT
        grid = grid.reshape(len(blocks), _BLOCK)
        if vectors.negative is not None:
            grid = np.where(vectors.negative == 0, grid, -grid)
        return grid, base, vectors.odd


@lru_cache(maxsize=16)
def codebook(name: str) -> F32:
    """f32 [entries, 4 or 8] of a gguf quantization class."""
    from gguf import quants

    source = getattr(quants, name)
    source.init_grid()
    return source.grid.reshape(source.grid_shape).astype(np.float32)


@lru_cache(maxsize=1)
def _even_signs() -> U8:
    """u8 [128, 8]: seven stored signs, and the eighth that makes their number even."""
    bits = np.unpackbits(np.arange(128, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    bits[:, 7] = bits.sum(axis=1) & 1
    return bits


def _half(fields: Fields) -> F32:
    return fields["d"].view("<f2").astype(np.float32)


def _nibbles(raw: U8) -> U8:
    """u8 [n, m] to [n, 2m], low nibble first."""
    return np.stack([raw & np.uint8(15), raw >> np.uint8(4)], axis=2).reshape(
        raw.shape[0], raw.shape[1] * 2
    )


def _bits(raw: U8, width: int) -> Index:
    """u8 [n, m] to u16 [n, m * 8 / width], lowest bits first."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    parts = (raw[:, :, None] >> shifts) & np.uint8(2**width - 1)
    return parts.reshape(raw.shape[0], raw.shape[1] * len(shifts)).astype(np.uint16)


def _sign_bits(raw: U8) -> U8:
    return np.unpackbits(raw, axis=1, bitorder="little")


def _packed_signs(words: npt.NDArray[np.uint32]) -> U8:
    """Four 7-bit sign groups in each u32 [n, 8]: u8 [n, 256]."""
    shifts = np.array([0, 7, 14, 21], np.uint32)
    return _even_signs()[(words[:, :, None] >> shifts) & np.uint32(127)].reshape(-1, _BLOCK)


def _scaled(scale: F32, factor: float) -> F32:
    """The float under `odd` where a type has `factor * scale * (c + 0.5)`."""
    return scale * np.float32(factor / 2)


def _odd(codes: npt.NDArray[np.unsignedinteger]) -> U8:
    """2 c + 1."""
    return (2 * codes + 1).astype(np.uint8)


def _read_iq2_xxs(fields: Fields) -> Vectors:
    words = np.ascontiguousarray(fields["qs"]).view("<u4").reshape(-1, 8, 2)
    signs = np.ascontiguousarray(words[:, :, 1])
    index = np.ascontiguousarray(words[:, :, 0]).view(np.uint8).astype(np.uint16)
    return Vectors(
        index, _scaled(_half(fields), 0.25), _odd(signs >> np.uint32(28)), _packed_signs(signs)
    )


def _read_iq2_xs(fields: Fields) -> Vectors:
    words = fields["qs"].view("<u2")
    negative = _even_signs()[words >> np.uint16(9)].reshape(-1, _BLOCK)
    base, odd = _scaled(_half(fields), 0.25), _odd(_nibbles(fields["scales"]))
    return Vectors(words & np.uint16(511), base, odd, negative)


def _read_iq2_s(fields: Fields) -> Vectors:
    index = fields["qs"] | (_bits(fields["qh"], 2) << np.uint16(8))
    base, odd = _scaled(_half(fields), 0.25), _odd(_nibbles(fields["scales"]))
    return Vectors(index, base, odd, _sign_bits(fields["signs"]))


def _read_iq3_xxs(fields: Fields) -> Vectors:
    signs = fields["scales"].view("<u4")
    base, odd = _scaled(_half(fields), 0.5), _odd(signs >> np.uint32(28))
    return Vectors(fields["qs"].astype(np.uint16), base, odd, _packed_signs(signs))


def _read_iq3_s(fields: Fields) -> Vectors:
    index = fields["qs"] | (_bits(fields["qh"], 1) << np.uint16(8))
    base, odd = _half(fields), _odd(_nibbles(fields["scales"]))
    return Vectors(index, base, odd, _sign_bits(fields["signs"]))


def _read_iq1_s(fields: Fields) -> Vectors:
    high = fields["qh"].view("<u2")
    parts = (high[:, :, None] >> np.array([0, 3, 6, 9], np.uint16)) & np.uint16(7)
    index = fields["qs"] | (parts.reshape(-1, 32) << np.uint16(8))
    shift = np.where(high & np.uint16(0x8000), -_SHIFT, _SHIFT)
    base, odd = _half(fields), _odd((high >> np.uint16(12)) & np.uint16(7))
    return Vectors(index, base, odd, shift=np.repeat(shift, 4, axis=1))


def _read_iq1_m(fields: Fields) -> Vectors:
    # The f16 scale lies in the top four bits of the four scale words.
    words = fields["scales"].view("<u2")
    tops = (words & np.uint16(0xF000)) >> np.array([12, 8, 4, 0], np.uint16)
    scale = np.bitwise_or.reduce(tops, axis=1)[:, None].view("<f2").astype(np.float32)
    small = (words[:, :, None] >> np.array([0, 3, 6, 9], np.uint16)) & np.uint16(7)
    high = _nibbles(fields["qh"])
    index = fields["qs"] | ((high & np.uint8(7)).astype(np.uint16) << np.uint16(8))
    shift = np.where(high & np.uint8(8), -_SHIFT, _SHIFT)
    return Vectors(index, scale, _odd(small.reshape(-1, 16)), shift=shift)


def _both(*magnitudes: int) -> tuple[int, ...]:
    return (*(-value for value in reversed(magnitudes)), *magnitudes)


_ONES = _both(1, 7, 9)
_TWOS = _both(8, 25, 43)
_THREES = _both(4, 12, 20, 28, 36, 44, 52, 62)
_ODD = _both(1, 3, 5, 7, 9, 11, 13, 15)

GRID_BLOCKS: dict[str, GridBlock] = {
    "iq1_s": GridBlock("IQ1_S", (("d", 2), ("qs", 32), ("qh", 16)), _read_iq1_s, _ONES),
    "iq1_m": GridBlock("IQ1_M", (("qs", 32), ("qh", 16), ("scales", 8)), _read_iq1_m, _ONES),
    "iq2_xxs": GridBlock("IQ2_XXS", (("d", 2), ("qs", 64)), _read_iq2_xxs, _TWOS),
    "iq2_xs": GridBlock("IQ2_XS", (("d", 2), ("qs", 64), ("scales", 8)), _read_iq2_xs, _TWOS),
    "iq2_s": GridBlock(
        "IQ2_S", (("d", 2), ("qs", 32), ("signs", 32), ("qh", 8), ("scales", 8)), _read_iq2_s, _TWOS
    ),
    "iq3_xxs": GridBlock("IQ3_XXS", (("d", 2), ("qs", 64), ("scales", 32)), _read_iq3_xxs, _THREES),
    "iq3_s": GridBlock(
        "IQ3_S", (("d", 2), ("qs", 64), ("qh", 8), ("signs", 32), ("scales", 4)), _read_iq3_s, _ODD
    ),
}
