"""What a run of a program gives, whatever simulator it was on."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nybble.backends.spgemm.image import Image, result
from nybble.backends.spgemm.problem import Word
from nybble.dialects.errors import NybbleError
from nybble.dialects.spgemm.matrix import SparseMatrix


def patience(harts: int) -> float:
    """Seconds that a simulator may take: harts of one that runs them in turn wait for each other,
    and the machine may have other work.
    """
    return 60.0 + 10.0 * harts


class EngineError(NybbleError):
    """A simulator that is missing, or that did not finish a program."""


@dataclass(frozen=True)
class Outcome:
    """product: the result. spilled: products that found no room in an accumulator.

    figures: what the simulator counted, such as cycles.
    """

    product: SparseMatrix
    spilled: int
    figures: Mapping[str, float] = field(default_factory=dict[str, float])


def read_report(image: Image, report: bytes, figures: Mapping[str, float]) -> Outcome:
    """The outcome of what a program wrote to file 1: descriptor, keys and values.

    Raises EngineError for a report that is cut short.
    """
    head = 8 * Word.COUNT
    if len(report) < head:
        raise EngineError(f"a program that reported {len(report)} bytes", accepted=f"{head} bytes")
    words = struct.unpack_from(f"<{int(Word.COUNT)}q", report)
    count = words[Word.OUT_COUNT]
    wanted = head + count * (8 + image.dtype.itemsize)
    if len(report) != wanted:
        raise EngineError(
            f"a program that reported {len(report)} bytes", accepted=f"{wanted} bytes"
        )
    keys = np.frombuffer(report, np.int64, count, head)
    values = np.frombuffer(report, image.dtype, count, head + 8 * count)
    return Outcome(result(image, keys, values), words[Word.SPILLED], figures)
