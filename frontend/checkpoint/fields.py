"""Typed, bounded look-ups in an untrusted JSON-like mapping."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nybble.frontend.checkpoint.errors import CheckpointError, quoted


@dataclass(frozen=True)
class Fields:
    """The entries of one mapping in the file or folder `path`; `defaults` fill what is absent.

    An entry that is null counts as absent. Every look-up raises CheckpointError naming the key, the
    value and what is accepted.
    """

    path: Path
    values: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def fail(self, key: str, accepted: str) -> CheckpointError:
        """The error for `key`, whose value is not what was `accepted`."""
        value = self.get(key)
        state = "is missing" if value is None else f"is {quoted(value)}"
        return CheckpointError(self.path, f"entry {quoted(key)} {state}; needed: {accepted}")

    def get(self, key: str) -> Any:
        """The value at `key`, its default, or None; unchecked."""
        value = self.values.get(key)
        return self.defaults.get(key) if value is None else value

    def integer(self, key: str, low: int, high: int) -> int:
        """The integer at `key`, within [low, high]."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(key, f"an integer from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """The finite number at `key`, within [low, high]."""
        value = self.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.fail(key, f"a number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str) -> bool:
        """The bool at `key`; absent counts as false."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return bool(value)

    def choice(self, key: str, accepted: tuple[str, ...]) -> str:
        """The string at `key`, one of `accepted`."""
        value = self.get(key)
        if value not in accepted:
            raise self.fail(key, f"one of {', '.join(accepted)}")
        return value

    def inner(self, key: str, defaults: Mapping[str, Any] | None = None) -> "Fields":
        """The mapping at `key`, empty when absent, as Fields with its own `defaults`."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.fail(key, "an object")
        return Fields(self.path, value or {}, defaults or {})

    def ids(self, key: str, bound: int) -> int | list[int] | None:
        """The token id or list of ids at `key`, each in [0, bound), or None."""
        value = self.get(key)
        found = value if isinstance(value, list) else [] if value is None else [value]
        if any(type(one) is not int or not 0 <= one < bound for one in found):
            raise self.fail(key, f"token ids from 0 to {bound - 1}")
        return value
