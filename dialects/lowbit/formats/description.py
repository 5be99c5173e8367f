"""What a number format is: frozen data, its legality, its sizes, its storage layout."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import lcm

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
    zero_trees,
)
from nybble.dialects.lowbit.formats.names import shorten
from nybble.dialects.lowbit.formats.scale import (
    SCALE_BITS,
    IntegerZero,
    ScaleTree,
    SuperScale,
    TensorScale,
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
    Rotation,
    Sparsity,
)


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
        parts = Parts(
            self.element, self.grouping, self.scale, self.zero, self.sparsity, self.corrections
        )
        check_parts(parts, self.spelling)
        if self.store != NATIVE:
            check_store(parts, self.store, self.spelling)
            self.check_rows()

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
        """Weights of a row per scale; 1 for plain floats; FormatError where it is a whole row, or
        groups lie across rows.
        """
        if self.is_plain:
            return 1
        if self.grouping.axis == "rows":
            raise FormatError(f"the groups of '{self.spec}' lie across rows")
        if self.grouping.size is None:
            raise FormatError(f"the group of '{self.spec}' is a whole row, of any length")
        return self.grouping.size

    def group_size(self, cols: int) -> int:
        """Weights per scale in rows of `cols` weights; FormatError if groups lie across rows."""
        along = self.grouping.axis != "rows"
        return cols if along and self.grouping.size is None and not self.is_plain else self.group

    def scale_shape(self, rows: int, cols: int) -> tuple[int, int]:
        """Shape of the scales of a (rows, cols) matrix."""
        if self.is_plain:
            return rows, 0
        if self.grouping.axis == "rows":
            return rows // (self.grouping.size or max(rows, 1)), cols
        return rows, cols // max(self.group_size(cols), 1)

    def super_shape(self, rows: int, cols: int) -> tuple[int, int]:
        """Shape of the stored floats of a scale with sub-scales."""
        high, wide = self.scale_shape(rows, cols)
        count = self.grouping.count
        return (-(-high // count), wide) if self.grouping.axis != "cols" else (high, wide // count)

    @property
    def block(self) -> int:
        """What the number of columns must be a multiple of: a (super-)group or storage block."""
        sparse, grouping = self.sparsity, self.grouping
        count = grouping.count if grouping.axis == "cols" else 1
        steps = [1 if grouping.axis == "rows" else (grouping.size or 1) * count]
        if isinstance(sparse, NOfM):
            steps.append(sparse.of)
        if isinstance(sparse, Blocks):
            steps.append(sparse.cols)
        steps += [one.size for one in self.corrections if isinstance(one, Rotation)]
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
        tall = self.row_step
        if rows % tall:
            raise FormatError(
                f"{rows} rows in format '{self.spec}'", accepted=f"a multiple of {tall} rows"
            )

    @property
    def row_step(self) -> int:
        """What the number of rows must be a multiple of."""
        sparse, grouping = self.sparsity, self.grouping
        steps = [(grouping.size or 1) * grouping.count if grouping.axis == "rows" else 1]
        if isinstance(sparse, NOfM):
            steps.append(sparse.block)
        if isinstance(sparse, Blocks):
            steps.append(sparse.rows)
        return lcm(*steps)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight, scales and zeros included.

        What a whole row or column shares counts nothing. What depends on the weights is counted as
        follows; the size of what `pack` gives is exact. DFloat11 counts 11, a sparse pattern that
        keeps everything but zeros counts as if full.
        """
        stored = STORED_BLOCKS.get(self.store)
        if stored is not None:
            return 8 * stored[1] / stored[0]
        if isinstance(self.element, EntropyCoded):
            return 11.0
        kept = self.element.bits * _kept_share(self.sparsity)
        added = sum(map(_correction_bits, self.corrections))
        return kept + _shared_bits(self) + _index_bits(self.sparsity) + added

    @property
    def kept_share(self) -> float:
        """How much of the weights a sparse pattern keeps; 1 for one that keeps all but zeros."""
        return _kept_share(self.sparsity)

    @property
    def is_streamed(self) -> bool:
        """Whether `pack` gives one stream of bytes, u8 [n], instead of rows of equal length."""
        return self._stream_reason is not None

    @cached_property
    def _stream_reason(self) -> str | None:
        return _stream_reason(self)

    def row_bytes(self, cols: int) -> int:
        """Bytes of one stored row of `cols` weights; FormatError if it has no storage codec or is
        stored as a stream.
        """
        self.check_shape((self.row_step, cols))
        stored = STORED_BLOCKS.get(self.store)
        if stored is not None:
            return cols // stored[0] * stored[1]
        self.check_storable()
        self.check_rows()
        if self.is_plain:
            return cols * self.element.bits // 8
        layout = self.layout(cols)
        return cols // layout.weights * layout.bytes if cols else 0

    def check_rows(self) -> None:
        """Raise FormatError if rows have no bytes of their own."""
        if self._stream_reason is not None:
            raise FormatError(
                f"rows of '{self.spec}' have no fixed length: {self._stream_reason}",
                accepted="what `pack` gives, one stream of bytes",
            )

    def check_storable(self) -> None:
        """Raise FormatError unless bytes of this format can be packed and unpacked."""
        if not self.has_codes and not self.is_plain and self.store == NATIVE:
            raise FormatError(
                f"'{self.spec}' has no storage codec: its element {self.element.spell} has no code "
                "per weight",
                accepted="a named store for vector codes",
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


def _stream_reason(description: Description) -> str | None:
    """The part that does not fit rows of equal length, if any."""
    if isinstance(description.element, EntropyCoded):
        return "its code words have many lengths"
    if description.sparsity is not None:
        return f"sparsity {description.sparsity.spell}"
    stored = [one for one in description.corrections if not isinstance(one, Rotation)]
    if stored:
        return f"correction {stored[0].spell}"
    if description.grouping.axis != "cols":
        return f"grouping {description.grouping.spell}"
    trees = [description.scale, *zero_trees(description.zero)]
    shared = [tree for tree in trees if isinstance(tree, TensorScale) or _has_low(tree)]
    return f"scale {shared[0].spell}" if shared and shared[0] is not None else None


def _has_low(tree: ScaleTree | None) -> bool:
    return isinstance(tree, SuperScale) and tree.has_low


def _shared_bits(description: Description) -> float:
    size = description.grouping.size
    if size is None or description.is_plain:
        return 0.0
    total = size * description.grouping.count
    bits = (description.element.choices - 1).bit_length() / size
    for tree in (description.scale, *zero_trees(description.zero)):
        bits += 0.0 if tree is None else tree_bits(tree, size, total)
    zero = description.zero
    return bits + (zero.width / size if isinstance(zero, IntegerZero) else 0.0)


def _kept_share(sparsity: Sparsity | None) -> float:
    if isinstance(sparsity, NOfM):
        return sparsity.keep / sparsity.of
    if sparsity is None or sparsity.permille is None:
        return 1.0
    return sparsity.permille / 1000


def _index_bits(sparsity: Sparsity | None) -> float:
    """Bits per weight of the index: columns of 16 bits."""
    share = _kept_share(sparsity)
    if sparsity is None:
        return 0.0
    if isinstance(sparsity, NOfM):
        return (sparsity.of - 1).bit_length() * share / sparsity.block
    if isinstance(sparsity, Blocks):
        return 16 * share / (sparsity.rows * sparsity.cols)
    return 1.0 if sparsity.index == "bitmap" else 16 * share


def _correction_bits(correction: Correction) -> float:
    if isinstance(correction, Outliers):
        index = 16 if correction.index == "csr" else 64
        return correction.permille / 1000 * (SCALE_BITS[correction.dtype] + index)
    return 0.0
