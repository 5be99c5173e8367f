"""Blocks of the ggml types whose weights have codes, as data.

Source of the layouts: ggml's block_q* structs, as the `gguf` package reads them.
"""

from dataclasses import dataclass

import numpy as np

from nybble.dialects.lowbit.formats.arrays import U8
from nybble.dialects.lowbit.formats.bits import BitField, Plane
from nybble.dialects.lowbit.formats.layout import Layout, TreeFields

_PAIR = (0, 4)
_QUAD = (0, 2, 4, 6)
_EIGHT = tuple(range(8))


@dataclass(frozen=True)
class Trits:
    """Base-3 digits: (field, digits per byte), first digit most significant, as 256/243 fractions.

    Source: ggml TQ1_0; a byte holds ceil(value * 256 / 243), so that multiplying by 3 modulo 256
    brings the next digit into the high bits.
    """

    count: int
    runs: tuple[tuple[str, int], ...]

    def read(self, fields: dict[str, U8]) -> U8:
        """Fields u8 [blocks, bytes] to digits u8 [blocks, count]."""
        parts: list[U8] = []
        for name, digits in self.runs:
            powers = np.array([3**digit for digit in range(digits)], np.uint8)[:, None]
            moved = fields[name][:, None, :] * powers
            parts.append(moved.reshape(moved.shape[0], digits * moved.shape[2]))
        joined = np.concatenate(parts, axis=1).astype(np.uint16)
        return ((joined * 3) >> 8).astype(np.uint8)

    def write(self, integers: U8, fields: dict[str, U8]) -> None:
        """Digits 0..2 into the fields."""
        start = 0
        for name, digits in self.runs:
            size = fields[name].shape[1]
            part = integers[:, start : start + digits * size]
            start += digits * size
            powers = np.array([3 ** (4 - digit) for digit in range(digits)], np.uint16)[:, None]
            value = (part.reshape(-1, digits, size) * powers).sum(axis=1, dtype=np.uint16)
            fields[name][:] = ((value * 256 + 242) // 243).astype(np.uint8)


def _nibbles(weights: int, span: int) -> BitField:
    return BitField(weights, (Plane("qs", span, _PAIR, 15),))


_FIFTH_BIT = BitField(32, (Plane("qs", 16, _PAIR, 15), Plane("qh", 1, _EIGHT, 1, 4)))
_D = TreeFields("d")
_M = TreeFields("m")

# K-quants keep eight 6-bit scales and minima in three fields of four bytes:
# sd: EEAAAAAA, sm: eeaaaaaa, sx: eeeeEEEE (high bits of the last four lie above the first four).
_K_SCALES = TreeFields(
    "d",
    BitField(8, (Plane("sd", 4, (0,), 63), Plane("sx", 4, (0,), 15, 0, 4),
                 Plane("sd", 4, (6,), 3, 4, 4))),
)  # fmt: skip
_K_MINS = TreeFields(
    "dmin",
    BitField(8, (Plane("sm", 4, (0,), 63), Plane("sx", 4, (4,), 15, 0, 4),
                 Plane("sm", 4, (6,), 3, 4, 4))),
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {
    "q1_0": Layout(128, (("d", 2), ("qs", 16)), BitField(128, (Plane("qs", 1, _EIGHT, 1),)), _D),
    "q4_0": Layout(32, (("d", 2), ("qs", 16)), _nibbles(32, 16), _D),
    "q4_1": Layout(32, (("d", 2), ("m", 2), ("qs", 16)), _nibbles(32, 16), _D, _M),
    "q5_0": Layout(32, (("d", 2), ("qh", 4), ("qs", 16)), _FIFTH_BIT, _D),
    "q5_1": Layout(32, (("d", 2), ("m", 2), ("qh", 4), ("qs", 16)), _FIFTH_BIT, _D, _M),
    "q8_0": Layout(
        32, (("d", 2), ("qs", 32)), BitField(32, (Plane("qs", 32, (0,), 255),), 0x80), _D
    ),
    "q2_k": Layout(
        256,
        (("sc", 16), ("qs", 64), ("d", 2), ("dmin", 2)),
        BitField(256, (Plane("qs", 32, _QUAD, 3),)),
        TreeFields("d", BitField(16, (Plane("sc", 16, (0,), 15),))),
        TreeFields("dmin", BitField(16, (Plane("sc", 16, (4,), 15),))),
    ),
    "q3_k": Layout(
        256,
        (("qh", 32), ("qs", 64), ("scl", 8), ("sch", 4), ("d", 2)),
        BitField(256, (Plane("qs", 32, _QUAD, 3), Plane("qh", 32, _EIGHT, 1, 2))),
        TreeFields("d", BitField(16, (Plane("scl", 8, _PAIR, 15), Plane("sch", 4, _QUAD, 3, 4)))),
    ),
    "q4_k": Layout(
        256,
        (("d", 2), ("dmin", 2), ("sd", 4), ("sm", 4), ("sx", 4), ("qs", 128)),
        _nibbles(256, 32),
        _K_SCALES,
        _K_MINS,
    ),
    "q5_k": Layout(
        256,
        (("d", 2), ("dmin", 2), ("sd", 4), ("sm", 4), ("sx", 4), ("qh", 32), ("qs", 128)),
        BitField(256, (Plane("qs", 32, _PAIR, 15), Plane("qh", 32, _EIGHT, 1, 4))),
        _K_SCALES,
        _K_MINS,
    ),
    "q6_k": Layout(
        256,
        (("ql", 128), ("qh", 64), ("sc", 16), ("d", 2)),
        BitField(256, (Plane("ql", 64, _PAIR, 15), Plane("qh", 32, _QUAD, 3, 4))),
        TreeFields("d", BitField(16, (Plane("sc", 16, (0,), 255),), 0x80)),
    ),
    "tq1_0": Layout(
        256,
        (("qs0", 32), ("qs1", 16), ("qh", 4), ("d", 2)),
        Trits(256, (("qs0", 5), ("qs1", 5), ("qh", 4))),
        _D,
    ),
    "tq2_0": Layout(256, (("qs", 64), ("d", 2)), BitField(256, (Plane("qs", 32, _QUAD, 3),)), _D),
    "iq4_nl": Layout(32, (("d", 2), ("qs", 16)), _nibbles(32, 16), _D),
    "iq4_xs": Layout(
        256,
        (("d", 2), ("sch", 2), ("scl", 4), ("qs", 128)),
        _nibbles(256, 16),
        TreeFields("d", BitField(8, (Plane("scl", 1, _PAIR, 15), Plane("sch", 1, _QUAD, 3, 4)))),
    ),
    "mxfp4": Layout(32, (("d", 1), ("qs", 16)), _nibbles(32, 16), _D),
    "nvfp4": Layout(64, (("d", 4), ("qs", 32)), _nibbles(64, 8), _D),
}
