"""exp in f32 by a table and a short polynomial, in the order of operations that hardware has.

Tang 1989, "Table-driven implementation of the exponential function in IEEE floating-point
arithmetic" (ACM TOMS 15:2): with x = (32 k + j) ln 2 / 32 + r it is exp(x) = 2^k T[j] (1 + p(r)),
T[j] = 2^(j / 32) and p(r) = r + r^2 / 2 + r^3 / 6. The paper's longer first part of ln 2 / 32 takes
two steps; here it is shorter, so that one is exact. Every step is rounded to f32 by itself, so that
C++ without fused multiply-adds gives the same bits.
"""

import numpy as np

from nybble.dialects.numpy_ref.arrays import F32

PIECES = 32
"""Entries of the table."""
PER_PIECE = np.float32(PIECES / np.log(2))
PIECE_HIGH = np.float32(1419 / 2**16)
"""ln 2 / 32 in 11 bits, so that a whole number of them up to 2^13 is exact."""
PIECE_LOW = np.float32(np.log(2) / PIECES - float(PIECE_HIGH))
SIXTH = np.float32(1 / 6)
LARGEST, SMALLEST = np.float32(88.7), np.float32(-87.3)
"""Beyond them the result is infinite, and 0: subnormal results are none."""
TABLE: F32 = np.exp2(np.arange(PIECES) / PIECES).astype(np.float32)
ULPS = 1.5
"""Bound of the error, in units of the last place of the result (a test tries every exponent)."""


def exp(x: F32) -> F32:
    """exp of f32 of any shape, to ULPS; infinite from LARGEST on, 0 up to SMALLEST, NaN of NaN."""
    inside = np.where((x < LARGEST) & (x > SMALLEST), x, np.float32(0))
    pieces = np.rint(inside * PER_PIECE)
    rest = (inside - pieces * PIECE_HIGH) - pieces * PIECE_LOW
    poly = rest + (rest * rest) * (np.float32(0.5) + rest * SIXTH)
    whole = pieces.astype(np.int32)
    entry = TABLE[whole & (PIECES - 1)]
    found = entry + entry * poly
    scaled = (found.view(np.int32) + ((whole >> 5) << 23)).view(np.float32)
    beyond = np.where(x >= LARGEST, np.float32(np.inf), np.float32(0))
    result = np.where((x < LARGEST) & (x > SMALLEST), scaled, beyond)
    return np.where(np.isnan(x), x, result)
