"""The instruction set as data: the units, and the fields of each instruction in order.

Unit classes, lengths in words and the wait and release masks are those of FlightLLM
(arXiv:2401.03868); names, fields and their places are ours. Encoder, decoder, assembler,
disassembler and the table in docs/fpga.md follow from INSTRUCTIONS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

UNITS = ("ld", "st", "mm", "mv", "misc", "sys")
"""In the order of the bits of a mask, lowest first."""
WORD_BITS = 32
BLOCK = 16
"""Elements of a block: activations and values are addressed in blocks."""
LINE = 16
"""Bytes of a line: memory, weights and parameters are addressed in lines."""

BUFFERS = ("weights", "params", "values")
SPACES = ("shared", "layer", "cache", "position", "last")
STORES = ("memory", "share", "keys", "values")
SOURCES = ("matrix", "keys", "values")
OPERATIONS = ("add", "mul", "softmax", "layernorm", "rmsnorm", "silu", "rope", "quantize")
ACTIONS = ("layer", "loop", "end", "halt")


@dataclass(frozen=True)
class Field:
    """Bits of an instruction, after those of the field before. names: what values are called."""

    name: str
    bits: int
    text: str
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Layout:
    """An instruction: its operation code, length in words of 32 bits, and fields."""

    name: str
    code: int
    words: int
    text: str
    fields: tuple[Field, ...]

    @property
    def places(self) -> dict[str, tuple[Field, int]]:
        """Field -> itself and its lowest bit, counted through all words."""
        found: dict[str, tuple[Field, int]] = {}
        low = 0
        for one in self.fields:
            found[one.name] = (one, low)
            low += one.bits
        return found

    @property
    def bytes(self) -> int:
        """Length in the stream."""
        return self.words * WORD_BITS // 8


HEADER = (
    Field("code", 4, "operation code"),
    Field("wait", 6, "units of which each has to have released a token to this one"),
    Field("release", 6, "units that get a token when the instruction is done"),
)
_PRODUCT = (
    Field("bits", 4, "bits of a weight, 1 to 8"),
    Field("keep", 5, "columns of 16 that are kept, 16 for a dense matrix"),
    Field("first", 1, "sums start at zero"),
    Field("last", 1, "sums are scaled and written"),
    Field("source", 2, "what lies in the weight buffer", SOURCES),
    Field("spare", 3, "zero"),
    Field("weights", 18, "line of the weight buffer"),
    Field("activations", 20, "block of codes, [columns, tokens]"),
    Field("output", 20, "block of values, [rows, tokens]"),
    Field("columns", 12, "blocks of columns"),
    Field("rows", 12, "blocks of rows"),
    Field("tokens", 4, "2 to this power"),
    Field("group", 10, "blocks of columns that share a scale, 0 for all of the row"),
)
_LD = Layout(
    "ld", 1, 7, "memory to a buffer, in three nested loops",
    (
        *HEADER,
        Field("buffer", 3, "where to", BUFFERS),
        Field("space", 3, "base that is added to the address", SPACES),
        Field("channel", 6, "0: all channels of the region; else one of them, from 1"),
        Field("spare", 4, "zero"),
        Field("address", 32, "line of memory"),
        Field("length", 32, "bytes of the innermost run"),
        Field("loops", 16, "runs"),
        Field("outer", 16, "repeats of the runs"),
        Field("stride", 32, "bytes from run to run"),
        Field("outer_stride", 32, "bytes from repeat to repeat"),
        Field("target", 32, "line of the buffer (block, for values)"),
    ),
)  # fmt: skip
_ST = Layout(
    "st", 2, 3, "values to memory, to all regions, or to the caches as codes of 8 bits",
    (
        *HEADER,
        Field("mode", 2, "where to", STORES),
        Field("space", 3, "base that is added to the address", SPACES),
        Field("tokens", 4, "2 to this power"),
        Field("channel", 6, "as of ld"),
        Field("spare", 1, "zero"),
        Field("address", 32, "line of memory; block of values for share"),
        Field("blocks", 12, "blocks of each token"),
        Field("source", 20, "block of values"),
    ),
)  # fmt: skip
_MISC = Layout(
    "misc", 5, 3, "element by element, or along rows",
    (
        *HEADER,
        Field("operation", 4, "which", OPERATIONS),
        Field("codes", 1, "write codes of 8 bits and the row's scale, not values"),
        Field("blocks", 11, "blocks of each token"),
        Field("left", 20, "block of values"),
        Field("right", 20, "block of values; line of parameters for norms and rope; "
              "first token for softmax and rope"),
        Field("output", 20, "block of values or of codes"),
        Field("tokens", 4, "2 to this power"),
    ),
)  # fmt: skip
_SYS = Layout(
    "sys", 15, 1, "control",
    (
        *HEADER,
        Field("action", 4, "layer: take its bases; loop: all, up to end; halt: stop", ACTIONS),
        Field("value", 12, "a layer, or how many"),
    ),
)  # fmt: skip
INSTRUCTIONS: Mapping[str, Layout] = {
    one.name: one
    for one in (
        _LD,
        _ST,
        Layout("mm", 3, 4, "matrix of tokens by weights", (*HEADER, *_PRODUCT)),
        Layout("mv", 4, 4, "tokens one after another by weights", (*HEADER, *_PRODUCT)),
        _MISC,
        _SYS,
    )
}
"""Unit -> its only instruction."""
CODES = {one.code: one for one in INSTRUCTIONS.values()}


def table() -> str:
    """The fields of all instructions, as a Markdown table."""
    rows = ["| instruction | bits | field | what |", "|---|---|---|---|"]
    for one in INSTRUCTIONS.values():
        for name, (field, low) in one.places.items():
            named = f": {', '.join(field.names)}" if field.names else ""
            place = f"{low + field.bits - 1}:{low}" if field.bits > 1 else str(low)
            rows.append(f"| `{one.name}` | {place} | `{name}` | {field.text}{named} |")
    return "\n".join(rows)
