"""Layouts of sparse matrices: their spelling, their parameters, and the arrays each consists of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nybble.dialects.spgemm.errors import SparseError

INDEX_WIDTHS = (32, 64)


@dataclass(frozen=True)
class Kind:
    """A family of layouts. arrays: names of its arrays; spelling: how its parameters are written.

    count: of the parameters.
    """

    arrays: tuple[str, ...]
    spelling: str
    count: int = 0


KINDS: Mapping[str, Kind] = {
    "csr": Kind(("indptr", "indices", "values"), "csr"),
    "csc": Kind(("indptr", "indices", "values"), "csc"),
    "coo": Kind(("rows", "indices", "values"), "coo"),
    "rows": Kind(("rows", "indptr", "indices", "values"), "rows"),
    "bitmap": Kind(("indptr", "bits", "values"), "bitmap"),
    "bcsr": Kind(("indptr", "indices", "values"), "bcsr(RxC)", 2),
    "nm": Kind(("indices", "values"), "nm(N:M)", 2),
}
"""csr: of each row the columns and values. csc: of each column the rows and values. coo: of each
entry row, column and value, by row and then column. rows: csr of the rows that have entries, with a
list of them (doubly compressed). bitmap: a bit for each place, and the values of those set. bcsr:
csr of dense blocks of R rows and C columns. nm: of every M values in a row N are stored, with their
places among the M."""

_SPELLING = re.compile(r"(?P<kind>[a-z]+)(?:\((?P<a>\d{1,6})[x:](?P<b>\d{1,6})\))?")


@dataclass(frozen=True)
class Layout:
    """A layout: `Layout.parse("bcsr(16x16)")`; `sizes` are its parameters."""

    kind: str
    sizes: tuple[int, ...] = ()

    @staticmethod
    def parse(text: str) -> "Layout":
        """The layout of a spelling; raises SparseError."""
        found = _SPELLING.fullmatch(text.replace(" ", ""))
        if found is None or found["kind"] not in KINDS:
            raise SparseError(f"unknown layout '{text}'", accepted=_accepted())
        kind = found["kind"]
        sizes = tuple(int(found[name]) for name in "ab" if found[name] is not None)
        made = Layout(kind, sizes)
        made.check()
        if text.replace(" ", "") != str(made):
            raise SparseError(f"layout '{text}'", accepted=KINDS[kind].spelling)
        return made

    def check(self) -> None:
        """Raises SparseError for parameters that this kind does not have."""
        kind = KINDS[self.kind]
        if len(self.sizes) != kind.count or 0 in self.sizes:
            raise SparseError(f"layout '{self}'", accepted=kind.spelling)
        if self.kind == "nm" and not self.sizes[0] < self.sizes[1] <= 256:
            raise SparseError(f"layout '{self}'", accepted="nm(N:M) with N < M <= 256")

    def check_shape(self, rows: int, cols: int) -> None:
        """Raises SparseError for a shape that blocks or groups do not divide; -1 is unknown."""
        if self.kind == "bcsr":
            sides = ((rows, self.sizes[0], "rows"), (cols, self.sizes[1], "columns"))
        elif self.kind == "nm":
            sides = ((cols, self.sizes[1], "columns"),)
        else:
            return
        for size, part, name in sides:
            if size > 0 and size % part:
                raise SparseError(f"{size} {name} in {self}", accepted=f"a multiple of {part}")

    def __str__(self) -> str:
        if not self.sizes:
            return self.kind
        return f"{self.kind}({(':' if self.kind == 'nm' else 'x').join(map(str, self.sizes))})"


def _accepted() -> str:
    return ", ".join(kind.spelling for kind in KINDS.values())
