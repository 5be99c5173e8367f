"""Registries: tables of `name -> "module:Object"` whose rows are imported only when asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Generic, TypeGuard, TypeVar

from nybble.dialects.errors import UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """One kind of named thing (dialects, passes, ...).

    kind: the word for one of them, used in messages.
    rows: name -> "module:Object".
    accepts: tells whether a loaded object is of this kind; a row that fails is our own bug.
    """

    kind: str
    rows: Mapping[str, str]
    accepts: Callable[[object], TypeGuard[T]]

    def load(self, name: str) -> T:
        """The object registered as `name`; raises UnknownNameError for a name without a row."""
        reference = self.reference(name)
        module, _, attribute = reference.partition(":")
        found: object = getattr(import_module(module), attribute)
        if not self.accepts(found):
            raise TypeError(f"{reference} is registered as {self.kind} '{name}' but is not one")
        return found

    def reference(self, name: str) -> str:
        """The row of `name`, without importing it; raises UnknownNameError if there is none."""
        if name not in self.rows:
            raise UnknownNameError(f"unknown {self.kind} '{name}'", accepted=self._accepted(name))
        return self.rows[name]

    def _accepted(self, name: str) -> str:
        near = get_close_matches(name, self.rows, n=3)
        listed = near or sorted(self.rows)[:12]
        more = "" if near or len(self.rows) <= len(listed) else ", ..."
        return (", ".join(listed) + more) or f"none, no {self.kind} is registered"
