"""The spelling of masks, the same in IR, on command lines and in files.

    mask   = term { "+" term }                  union
    term   = factor { "&" factor }              intersection
    factor = "(" mask ")" | NAME | NAME "(" INT { "," INT } ")" | heads
    heads  = "heads" "(" { set ":" mask ";" } "else" ":" mask ")"
    set    = INT [ "-" INT ] { "," INT [ "-" INT ] }

Blanks do not matter; `str(mask)` has none.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

from nybble.dialects.sparse_attn.masks.combine import ByHead, HeadSet, Intersection, Union
from nybble.dialects.sparse_attn.masks.errors import MaskError
from nybble.dialects.sparse_attn.masks.mask import Mask
from nybble.dialects.sparse_attn.masks.selected import POLICIES, Selected
from nybble.dialects.sparse_attn.masks.static import Causal, Sink, Streaming, Stride, Window

MAX_LENGTH = 4096
MAX_DEPTH = 16
LARGEST = 1 << 30
MAX_HEADS = 1 << 14
_TOKEN = re.compile(r"\s*([a-z_]+|-?[0-9]+|[-+&(),:;])")

Maker = Callable[..., Mask]


def _selected(name: str, *numbers: int) -> Mask:
    return Selected(name, numbers)


def _counts(names: tuple[str, ...]) -> tuple[int, ...]:
    least = len(names) - (names[-1] == "layers")
    return tuple(range(least, len(names) + 1))


def _atoms() -> dict[str, tuple[Maker, tuple[int, ...]]]:
    """Name -> what makes it, and how many numbers it may take."""
    static: dict[str, tuple[Maker, tuple[int, ...]]] = {
        "causal": (Causal, (0,)),
        "window": (Window, (1,)),
        "sink": (Sink, (1,)),
        "streaming": (Streaming, (2,)),
        "stride": (Stride, (2, 3)),
    }
    selected: Mapping[str, tuple[Maker, tuple[int, ...]]] = {
        name: (partial(_selected, name), _counts(names)) for name, names in POLICIES.items()
    }
    return {**static, **selected}


ATOMS = _atoms()
NAMES = ", ".join([*ATOMS, "heads(..)"])


def parse(text: str) -> Mask:
    """The mask that a text spells; raises MaskError."""
    reader = Reader(text)
    mask = reader.union(0)
    reader.expect("")
    return mask


class Reader:
    """A text, token by token."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise MaskError(f"a mask of {len(text)} characters", accepted=f"{MAX_LENGTH} at most")
        self.text = text
        self.tokens = self._split(text)
        self.at = 0

    @staticmethod
    def _split(text: str) -> list[str]:
        tokens: list[str] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                raise MaskError(f"'{text[at:].strip()[0]}' in the mask '{text}'", accepted=NAMES)
            # A minus sign after a number is a range's, as in 0-3.
            token = found[1]
            if token[0] == "-" and len(token) > 1 and tokens and tokens[-1].isdigit():
                tokens.append("-")
                token = token[1:]
            tokens.append(token)
            at = found.end()
        return tokens

    @property
    def next(self) -> str:
        """The token to be read; empty at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, token: str) -> bool:
        """Read this token if it is next."""
        found = self.next == token
        self.at += found
        return found

    def expect(self, token: str) -> None:
        """Read this token, which must be next."""
        if not (self.take(token) if token else not self.next):
            raise self.error(f"'{token}'" if token else "the end, '+' or '&'")

    def error(self, wanted: str) -> MaskError:
        """The error about the next token."""
        found = f"'{self.next}'" if self.next else "the end"
        return MaskError(f"{found} in the mask '{self.text}'", accepted=wanted)

    def union(self, depth: int) -> Mask:
        """mask"""
        if depth > MAX_DEPTH:
            raise MaskError(
                f"masks are nested deeper than {MAX_DEPTH}", accepted=f"up to {MAX_DEPTH} levels"
            )
        parts = [self._intersection(depth)]
        while self.take("+"):
            parts.append(self._intersection(depth))
        return parts[0] if len(parts) == 1 else Union(tuple(parts))

    def _intersection(self, depth: int) -> Mask:
        parts = [self._factor(depth)]
        while self.take("&"):
            parts.append(self._factor(depth))
        return parts[0] if len(parts) == 1 else Intersection(tuple(parts))

    def _factor(self, depth: int) -> Mask:
        if self.take("("):
            mask = self.union(depth + 1)
            self.expect(")")
            return mask
        if self.take("heads"):
            cases, otherwise = self.cases(lambda: self.union(depth + 1))
            return ByHead(tuple(cases), otherwise)
        return self._atom()

    def _atom(self) -> Mask:
        name = self.next
        if name not in ATOMS:
            raise self.error(NAMES)
        self.at += 1
        make, counts = ATOMS[name]
        numbers: list[int] = []
        if self.take("("):
            numbers.append(self.number())
            while self.take(","):
                numbers.append(self.number())
            self.expect(")")
        if len(numbers) not in counts:
            accepted = " or ".join(str(count) for count in counts)
            raise MaskError(f"{name} has {len(numbers)} numbers", accepted=accepted)
        return make(*numbers)

    def cases(self, value: Callable[[], Mask]) -> tuple[list[tuple[HeadSet, Mask]], Mask]:
        """`( { set : value ; } else : value )`, of disjoint sets."""
        self.expect("(")
        cases: list[tuple[HeadSet, Mask]] = []
        taken: set[int] = set()
        while not self.take("else"):
            heads = self._set()
            if twice := taken & set(heads):
                raise MaskError(f"{min(twice)} is named twice in '{self.text}'", accepted="once")
            taken |= set(heads)
            self.expect(":")
            cases.append((HeadSet.of(heads), value()))
            self.expect(";")
        self.expect(":")
        otherwise = value()
        self.expect(")")
        return cases, otherwise

    def _set(self) -> list[int]:
        members: list[int] = []
        while True:
            first = self.number()
            last = self.number() if self.take("-") else first
            if not 0 <= first <= last < MAX_HEADS:
                raise MaskError(
                    f"the range {first}-{last}", accepted=f"0 to {MAX_HEADS - 1}, rising"
                )
            members += range(first, last + 1)
            if not self.take(","):
                return members

    def number(self) -> int:
        """An integer."""
        token = self.next
        if not token.lstrip("-").isdigit() or abs(int(token[:12])) > LARGEST:
            raise self.error(f"a whole number up to {LARGEST}")
        self.at += 1
        return int(token)
