"""A YAML mapping read entry by entry: every complaint names the file, the key and what is accepted.

Quantities may carry a unit, since YAML takes "1e12" for text and nobody counts zeros: "3.35 TB/s".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nybble.costmodel.targets.target import Fact
from nybble.dialects.errors import NybbleError

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SIZES = {f"{prefix}B": factor for prefix, factor in {**_DECIMAL, **_BINARY}.items()}
_COUNTS = {f"{prefix}{unit}": f for prefix, f in _DECIMAL.items() for unit in ("OP", "FLOP")}
UNITS: dict[str, Mapping[str, float]] = {
    "bytes": _SIZES,
    "bytes a second": {f"{unit}/s": factor for unit, factor in _SIZES.items()},
    "operations a second": {f"{unit}/s": factor for unit, factor in _COUNTS.items()},
    "seconds": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "hertz": {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    "count": {},
}
"""Quantity -> its units and their factors; a number without a unit is in the first of them."""
EXAMPLES = {
    "bytes": "228 KiB",
    "bytes a second": "3.35 TB/s",
    "operations a second": "312 TFLOP/s",
    "seconds": "2.5 us",
    "hertz": "225 MHz",
    "count": "132",
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z/]*)")


class TargetFileError(NybbleError):
    """A target file that says something else than a target."""


@dataclass(frozen=True)
class Node:
    """One mapping of a file. source: the file's name; path: where in it, empty for the top."""

    source: str
    path: str
    data: Mapping[str, Any]

    def fail(self, key: str, problem: str, accepted: str) -> TargetFileError:
        """The error that an entry has a problem."""
        return TargetFileError(f"{self.source}: {self._at(key)}: {problem}", accepted=accepted)

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def only(self, required: Sequence[str], optional: Sequence[str] = ()) -> "Node":
        """The node, if it has all keys that are required and none that is not named."""
        known = (*required, *optional)
        for key in self.data:
            if key not in known:
                raise self.fail(key, "unknown key", ", ".join(known))
        for key in required:
            if key not in self.data:
                raise self.fail(key, "missing", f"the keys {', '.join(known)}")
        return self

    def text(self, key: str) -> str:
        """Text that is not empty."""
        value = self.data.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, f"expected text, got {value!r:.60}", "text that is not empty")
        return value.strip()

    def flag(self, key: str) -> bool:
        """true or false."""
        value = self.data.get(key)
        if not isinstance(value, bool):
            raise self.fail(key, f"expected true or false, got {value!r:.60}", "true, false")
        return value

    def whole(self, key: str) -> int:
        """A whole number from 1 on."""
        value = self.data.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.fail(key, f"expected a whole number, got {value!r:.60}", "1, 2, 3, ...")
        return value

    def choice(self, key: str, names: Sequence[str]) -> str:
        """One of some names."""
        value = self.text(key)
        if value not in names:
            raise self.fail(key, f"unknown '{value[:60]}'", ", ".join(names))
        return value

    def node(self, key: str) -> "Node":
        """A mapping inside."""
        return self._node(self.data.get(key), key)

    def nodes(self, key: str) -> list["Node"]:
        """A list of mappings, not empty."""
        value = self.data.get(key)
        if not isinstance(value, list) or not value:
            raise self.fail(key, f"expected a list, got {value!r:.60}", "a list of mappings")
        return [self._node(one, f"{key}[{index}]") for index, one in enumerate(value)]

    def _node(self, value: object, key: str) -> "Node":
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self.fail(key, f"expected a mapping, got {value!r:.60}", "key: value")
        return Node(self.source, self._at(key), value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, or nothing."""
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.fail(key, f"expected a list of texts, got {value!r:.60}", "[a, b]")
        return tuple(value)

    def fact(self, key: str, quantity: str) -> Fact:
        """A mapping of a `value`, positive, and its `source`."""
        inner = self.node(key).only(("value", "source"))
        return Fact(inner.number("value", quantity), inner.text("source"))

    def number(self, key: str, quantity: str) -> float:
        """A positive number of a quantity, with one of its units or without."""
        value, units = self.data.get(key), UNITS[quantity]
        problem = f"{value!r:.60} is no number of {quantity}"
        accepted = f"such as {EXAMPLES[quantity]}"
        if units:
            accepted += f"; units {', '.join(units)}"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self.fail(key, problem, accepted)
        found = _QUANTITY.fullmatch(str(value).strip())
        if found is None or (found[2] and found[2] not in units):
            raise self.fail(key, problem, accepted)
        number = float(found[1]) * units.get(found[2], 1.0)
        if not 0.0 < number < 1e24:
            raise self.fail(key, f"{value!r:.60} is not above 0", accepted)
        return number
