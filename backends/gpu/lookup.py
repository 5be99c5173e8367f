"""LMMA, the instruction of LUT Tensor Core (arXiv 2408.06003): products of bits and tables.

No hardware has it: what it computes is defined here, kernels are executed in the simulator alone,
and its cycles are a model.

    lmma.sync.aligned.m2n64kK.A.wB.C.D  {d0..d3}, {tables}, {weights}, {c0..c3};

The paper's `lmma.{M}{N}{K}.{A}{W}{accumulator}{output}`: `D[m, n] = C[m, n] + sum_k A[m, k]
W[n, k]` of 2 rows of activations and 64 of weights, the paper's long tile. Activations come as
tables: for each 4 columns the 8 sums of which entry i takes the columns with the signs of i's bits
(bit 3 is 0); entry 15 - i of all 16 is the negative of entry i. A weight of B bits is the odd
integer `sum_p 2^p (2 b_p - 1)`, whose bits are looked up plane by plane. A is the type of entries:
f16 (K = 16, C and D f32), s16 (exact sums of 8-bit integers, K = 16, s32) or s8 (K = 32, s32).

Registers of lane l: of D and C, number 2 m + i is row n = 2 l + i of the weights. Entries lie in
the order [m, group of 4 columns, entry], so many in a 32-bit register as fit, one register a lane.
Weights: register `p` of K = 16 has plane p of rows 2 l (low half) and 2 l + 1, bit j that of column
j; with K = 32 register `2 p + i` has row 2 l + i.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.lookup import WIDTH, signs

ROWS, FEATURES = 2, 64
"""M and N."""
ENTRIES = 2 ** (WIDTH - 1)
DEPTHS = {"f16": 16, "s16": 16, "s8": 32}
"""Type of an entry -> K."""
SUMS = {"f16": "f32", "s16": "s32", "s8": "s32"}
MOST_BITS = 4
ARRAYS = 4
"""Of a multiprocessor, in the place of its four tensor cores (assumed)."""
EXTENSION = "+lmma"
"""Ends the name of an architecture that is thought to have the instruction."""
_NAME = re.compile(r"lmma\.sync\.aligned\.m2n64k(16|32)\.(f16|s16|s8)\.w([1-4])\.(f32|s32)\.\4")


@dataclass(frozen=True)
class Lmma:
    """One form of the instruction. entry: A, the type of entries; bits: of a weight."""

    entry: str
    bits: int

    @property
    def depth(self) -> int:
        """K."""
        return DEPTHS[self.entry]

    @property
    def registers(self) -> int:
        """Registers of a lane that hold weights."""
        return self.bits * self.depth // 16

    @property
    def name(self) -> str:
        """With its modifiers."""
        sums = SUMS[self.entry]
        shape = f"m{ROWS}n{FEATURES}k{self.depth}"
        return f"lmma.sync.aligned.{shape}.{self.entry}.w{self.bits}.{sums}.{sums}"

    @property
    def cycles(self) -> float:
        """Cycles of a multiprocessor: an array looks up 2 x 64 sums of 4 columns in each (m2n64k4,
        the paper's best tile), a plane at a time."""
        return self.depth / WIDTH * self.bits / ARRAYS


def find_lmma(name: str) -> Lmma | None:
    """The instruction of a name with its modifiers; None if it is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    depth, entry, bits, sums = found.groups()
    fits = DEPTHS[entry] == int(depth) and SUMS[entry] == sums
    return Lmma(entry, int(bits)) if fits else None


def tables(x: npt.NDArray[np.floating] | npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Entries [.., k / 4, 8] of activations [.., k], exact."""
    columns = x.astype(np.float64).reshape(*x.shape[:-1], -1, WIDTH)
    return columns @ signs(symmetric=True).T


def looked_up(
    entries: npt.NDArray[np.float64], planes: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """Products [.., m, n] of entries [.., m, groups, 8] and bits [.., planes, n, columns]."""
    shape = (*planes.shape[:-1], -1, WIDTH)
    index = (planes.reshape(shape) << np.arange(WIDTH, dtype=np.uint8)).sum(axis=-1)
    every = np.concatenate([entries, -entries[..., ::-1]], axis=-1)
    chosen = np.equal(index[..., None], np.arange(2 * ENTRIES)).astype(np.float64)
    weighted = np.einsum("...pngi,p->...ngi", chosen, 2.0 ** np.arange(planes.shape[-3]))
    return np.einsum("...mgi,...ngi->...mn", every, weighted)
