"""What the accumulators share: the row they get, how entries are read, how the result is written.

Each appends a row to the result, columns ascending, and returns the place after it. Products of a
column are rounded, then added in the order of the row's entries, whoever adds them: results are the
same to the bit under every choice.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nybble.backends.cpu.kernels.builder import Value
from nybble.backends.cpu.spgemm.frame import Frame


@dataclass(frozen=True)
class RowOf:
    """A row of A: entries [first, last); columns of its products within [low, low + width).

    meeting: how many of the entries meet a row of B that is not empty; only: the last one of them.
    """

    first: Value
    last: Value
    low: Value
    width: Value
    products: Value
    meeting: Value
    only: Value


class Accumulator(ABC):
    """A way to add up the products of a row."""

    def __init__(self, frame: Frame):
        self.f = frame
        self.b = frame.b
        self.ring = frame.ring

    @abstractmethod
    def append(self, row: RowOf, place: Value) -> Value:
        """Append the row at a place of the result; the place after it."""

    def entry(self, at: Value) -> tuple[Value, Value, Value]:
        """Value of an entry of A as a sum, and the bounds of the row of B that it meets."""
        first, last = self.f.row(self.f.index_at("a_index", at))
        return self.ring.wide(self.f["a_value"].load(at)), first, last

    def product(self, a: Value, at: Value) -> Value:
        """An entry of A times one of B."""
        return self.ring.multiply(a, self.ring.load_wide(self.f["b_value"], at))

    def emit(self, place: Value, column: Value, value: Value) -> None:
        """Write one entry of the result; column: an index."""
        self.f["out_index"].store(self.b.from_index(column, self.f.spec.index), place)
        self.f["out_value"].store(value, place)
