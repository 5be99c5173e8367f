"""What a number format is: frozen data, its legality, its sizes, its storage layout."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import lcm, log2

from nybble.dialects.lowbit.formats.element import Element, EntropyCoded, PlainFloat
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.ggml_layouts import LAYOUTS
from nybble.dialects.lowbit.formats.layout import Layout, LayoutRequest, native
from nybble.dialects.lowbit.formats.legality import (
    NATIVE,
    STORED_BLOCKS,
    Parts,
    check_parts,
    check_store,
)
from nybble.dialects.lowbit.formats.names import shorten
from nybble.dialects.lowbit.formats.scale import (
    SCALE_BITS,
    ScaleTree,
    StoredMin,
    Zero,
    tree_bits,
)
from nybble.dialects.lowbit.formats.structure import (
    WHOLE_ROWS,
    Blocks,
    Correction,
    Grouping,
    NOfM,
    Outliers,
    Sparsity,
)
from nybble.dialects.lowbit.formats.table_element import Grid


@dataclass(frozen=True)
class Description:
    """A number format as data; raises FormatError if its parts do not go together.

    store: name of the storage layout, "native" for the one derived from the other parts.
    """

    element: Element
    grouping: Grouping = WHOLE_ROWS
    scale: ScaleTree | None = None
    zero: Zero | None = None
    sparsity: Sparsity | None = None
    corrections: tuple[Correction, ...] = ()
    store: str = NATIVE

    def __post_init__(self) -> None:
        parts = Parts(self.element, self.grouping, self.scale, self.zero)
        check_parts(parts, self.spelling)
        if self.store != NATIVE:
            check_store(parts, self.store, self.spelling)
            self.check_storable()

    def __str__(self) -> str:
        return self.spec

    @cached_property
    def spelling(self) -> str:
        """The canonical text in the grammar, every part spelled out."""
        parts = [self.element.spell]
        if not self.is_plain:
            parts.append(f"g={self.grouping.spell}")
        if self.scale is not None:
            parts.append(f"s={self.scale.spell}")
        if self.zero is not None:
            parts.append(f"z={self.zero.spell}")
        if self.sparsity is not None:
            parts.append(f"sparse={self.sparsity.spell}")
        parts += [f"fix={correction.spell}" for correction in self.corrections]
        if self.store != NATIVE:
            parts.append(f"store={self.store}")
        return ":".join(parts)

    @cached_property
    def spec(self) -> str:
        """The canonical name: the short one if there is one, else the spelling."""
        return shorten(self.spelling)

    @property
    def is_plain(self) -> bool:
        """Whether values are unquantized floats, which have neither codes nor groups."""
        return isinstance(self.element, PlainFloat | EntropyCoded)

    @property
    def has_codes(self) -> bool:
        """Whether a weight has one code of at most 8 bits per value; else it has `values`."""
        return self.element.has_codes

    @property
    def group(self) -> int:
        """Weights per scale; 1 for plain floats; FormatError where it is a whole row."""
        if self.is_plain:
            return 1
        if self.grouping.size is None:
            raise FormatError(f"the group of '{self.spec}' is a whole row, of any length")
        return self.grouping.size

    def group_size(self, cols: int) -> int:
        """Weights per scale in rows of `cols` weights."""
        if self.grouping.size is None and not self.is_plain:
            return cols
        return self.group

    @property
    def block(self) -> int:
        """What the number of columns must be a multiple of: a (super-)group or storage block."""
        sparse = self.sparsity
        steps = [1 if self.grouping.size is None else self.grouping.size * self.grouping.count]
        if isinstance(sparse, NOfM):
            steps.append(sparse.of)
        if isinstance(sparse, Blocks):
            steps.append(sparse.cols)
        return lcm(*steps)

    def check_shape(self, shape: tuple[int, int]) -> None:
        """Raise FormatError unless a (rows, cols) matrix can have this format."""
        if len(shape) != 2 or any(size < 0 for size in shape):
            raise FormatError(f"'{self.spec}' of shape {shape}", accepted="(rows, cols)")
        rows, cols = shape
        if cols % self.block:
            raise FormatError(
                f"{cols} columns in format '{self.spec}'",
                accepted=f"a multiple of {self.block} columns",
            )
        tall = _row_step(self)
        if rows % tall:
            raise FormatError(
                f"{rows} rows in format '{self.spec}'", accepted=f"a multiple of {tall} rows"
            )

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight, scales and zeros included.

        What a whole row shares (grouping by rows) counts as nothing; sparse and corrected formats
        count their index and values; an entropy-coded format counts what its paper reports.
        """
        stored = STORED_BLOCKS.get(self.store)
        if stored is not None:
            weights, size = stored
            return 8 * size / weights
        if isinstance(self.element, EntropyCoded):
            return 11.0
        bits = self.element.bits + _shared_bits(self)
        return _sparse_bits(self.sparsity, bits) + sum(map(_correction_bits, self.corrections))

    def row_bytes(self, cols: int) -> int:
        """Bytes of one stored row of `cols` weights; FormatError if it has no storage codec."""
        self.check_shape((_row_step(self), cols))
        stored = STORED_BLOCKS.get(self.store)
        if stored is not None:
            return cols // stored[0] * stored[1]
        self.check_storable()
        if self.is_plain:
            return cols * self.element.bits // 8
        layout = self.layout(cols)
        return cols // layout.weights * layout.bytes if cols else 0

    def check_storable(self) -> None:
        """Raise FormatError unless bytes of this format can be packed and unpacked."""
        reason = _unstorable(self)
        if reason is not None:
            raise FormatError(
                f"'{self.spec}' has no storage codec: {reason}",
                accepted="dense formats grouped along columns without corrections",
            )

    def layout(self, cols: int) -> Layout:
        """The storage layout of rows of `cols` > 0 weights."""
        if self.store != NATIVE:
            return LAYOUTS[self.store]
        return _native_layout(self, self.group_size(cols))


@lru_cache(maxsize=512)
def _native_layout(description: Description, group: int) -> Layout:
    return native(
        LayoutRequest(
            code_bits=description.element.bits,
            group=group,
            count=description.grouping.count,
            scale=description.scale,
            zero=description.zero,
            choices=description.element.choices,
        )
    )


def _row_step(description: Description) -> int:
    sparse = description.sparsity
    tall = sparse.block if isinstance(sparse, NOfM) else 1
    return sparse.rows if isinstance(sparse, Blocks) else tall


def _unstorable(description: Description) -> str | None:
    if isinstance(description.element, EntropyCoded):
        return "its rows have no fixed length"
    if isinstance(description.element, Grid) and description.store == NATIVE:
        return "its vector codes need a named store"
    if description.sparsity is not None:
        return f"sparsity {description.sparsity.spell}"
    if description.corrections:
        return f"correction {description.corrections[0].spell}"
    if description.grouping.axis != "cols":
        return "it is grouped across rows"
    return None


def _shared_bits(description: Description) -> float:
    size = description.grouping.size
    if size is None or description.is_plain:
        return 0.0
    total = size * description.grouping.count
    bits = (description.element.choices - 1).bit_length() / size
    if description.scale is not None:
        bits += tree_bits(description.scale, size, total)
    if isinstance(description.zero, StoredMin):
        return bits + tree_bits(description.zero.tree, size, total)
    return bits + (description.zero.width / size if description.zero is not None else 0.0)


def _sparse_bits(sparsity: Sparsity | None, bits: float) -> float:
    """Bits per weight of a pattern; an unstructured or block pattern counts as if full."""
    if sparsity is None or isinstance(sparsity, Blocks):
        return bits
    if isinstance(sparsity, NOfM):
        index = log2(sparsity.of) / sparsity.block
        return (bits + index) * sparsity.keep / sparsity.of
    return bits + (1 if sparsity.index == "bitmap" else 32)


def _correction_bits(correction: Correction) -> float:
    if isinstance(correction, Outliers):
        index = 32 if correction.index == "csr" else 64
        return correction.permille / 1000 * (SCALE_BITS[correction.dtype] + index)
    return 0.0
