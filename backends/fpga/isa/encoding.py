"""Instructions to words and back: every value is checked against the bits of its field."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from nybble.backends.fpga.isa.instructions import CODES, INSTRUCTIONS, UNITS, Layout
from nybble.dialects.errors import NybbleError


class EncodingError(NybbleError):
    """A value that its field cannot hold, or words that are no instruction."""


@dataclass(frozen=True)
class Instruction:
    """One instruction. values: field -> number, but for `code` and the masks; what is missing is 0.

    wait, release: names of units.
    """

    unit: str
    values: Mapping[str, int] = field(hash=False)
    wait: frozenset[str] = frozenset()
    release: frozenset[str] = frozenset()

    @property
    def layout(self) -> Layout:
        """Its row of INSTRUCTIONS."""
        return INSTRUCTIONS[self.unit]

    def __getitem__(self, name: str) -> int:
        return self.values.get(name, 0)

    def named(self, name: str) -> str:
        """What the value of a field with names is called."""
        return self.layout.places[name][0].names[self[name]]

    @property
    def tokens(self) -> int:
        """How many tokens it is about."""
        return 1 << self["tokens"]

    def full(self) -> "Instruction":
        """The same with every field spelled out, as `decode` gives it."""
        names = (one.name for one in self.layout.fields[3:])
        return replace(self, values={name: self[name] for name in names})


def mask(units: Iterable[str]) -> int:
    """Units as bits."""
    return sum(1 << UNITS.index(one) for one in units)


def unmask(bits: int) -> frozenset[str]:
    """Bits as units."""
    return frozenset(one for index, one in enumerate(UNITS) if bits >> index & 1)


def encode(one: Instruction) -> bytes:
    """The little-endian words of an instruction; EncodingError for a value out of range."""
    layout = one.layout
    given = {**one.values, "code": layout.code, "wait": mask(one.wait)}
    given["release"] = mask(one.release)
    whole = 0
    places = layout.places
    for name, value in given.items():
        if name not in places:
            raise EncodingError(f"{one.unit} has no field '{name}'", accepted=", ".join(places))
        known, low = places[name]
        most = len(known.names) or 1 << known.bits
        if not 0 <= value < most:
            raise EncodingError(f"{one.unit}.{name} of {value}", accepted=f"0 to {most - 1}")
        whole |= value << low
    return whole.to_bytes(layout.bytes, "little")


def decode(data: bytes) -> Iterator[Instruction]:
    """The instructions of a stream; EncodingError says at which byte it is none."""
    at = 0
    while at < len(data):
        layout = CODES.get(data[at] & 15)
        if layout is None or at + layout.bytes > len(data):
            raise EncodingError(
                f"no instruction at byte {at}",
                accepted=f"a code of {', '.join(str(code) for code in CODES)} and all its words",
            )
        whole = int.from_bytes(data[at : at + layout.bytes], "little")
        found = {
            name: whole >> low & ((1 << known.bits) - 1)
            for name, (known, low) in layout.places.items()
        }
        _check_names(layout, found, at)
        del found["code"]
        wait, release = unmask(found.pop("wait")), unmask(found.pop("release"))
        yield Instruction(layout.name, found, wait, release)
        at += layout.bytes


def _check_names(layout: Layout, found: Mapping[str, int], at: int) -> None:
    for known in layout.fields:
        if known.names and found[known.name] >= len(known.names):
            raise EncodingError(
                f"{layout.name}.{known.name} is {found[known.name]} at byte {at}",
                accepted=f"0 to {len(known.names) - 1}",
            )
