"""Codes of all columns out of those that N:4 weights keep: a byte shuffle puts them in place."""

from collections.abc import Callable, Iterator

from nybble.backends.building.values import lanes
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kept_codes import NUMBERS, controls
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i8, i32, vec
from nybble.backends.cpu.kernels.matmul.elements import BYTES, WORDS, joined, permuted_words
from nybble.backends.cpu.tile_layout import LANES, RUN, VECTOR, TileLayout

Word = Callable[[int, int], Value]
"""What reads the vector of a piece of a step: (piece, vector) -> i32, or lanes of i32."""


def codes_of(
    b: KernelBuilder, layout: TileLayout, zero_code: int, isa: Isa, word: Word
) -> Iterator[Value]:
    """The codes of a step, 4 columns at a time, out of the vectors `word(piece, vector)`.

    Yields what `word` gives, i32 or lanes of i32, with a code in each byte. The patterns of what is
    kept are the piece behind the last one.
    """
    if not layout.keep:
        yield from clean_codes(layout, word)
        return
    per = RUN // layout.keep
    for index, kept in enumerate(clean_codes(layout, word)):
        for run in range(per):
            vector, place = divmod(index * per + run, NUMBERS)
            patterns = word(len(layout.widths), vector)
            width = 8 * layout.keep
            part = kept.shr(width * run) if run else kept
            part = (part & (1 << width) - 1) | zero_code << width
            yield _placed(b, layout.keep, isa, part, patterns.shr(4 * place) if place else patterns)


def _placed(b: KernelBuilder, keep: int, isa: Isa, part: Value, pattern: Value) -> Value:
    """Four codes, of the kept ones and the zero code in the bytes of `part`."""
    if lanes(part.type) == 1:
        return _placed_scalar(b, keep, part, pattern)
    control = permuted_words(b, isa.word_permute, controls(keep), pattern)
    bases = [lane % 4 * 4 * 0x01010101 for lane in range(LANES)]
    index = b.bitcast(control + b.const(bases, WORDS), BYTES)
    source, permute = b.bitcast(part, BYTES), isa.byte_shuffle
    width = permute.lanes
    runs = [
        b.intrinsic(
            permute.name,
            [b.slice(one, at, width) if width < VECTOR else one for one in (source, index)],
            vec(width, i8),
        )
        for at in range(0, VECTOR, width)
    ]
    return b.bitcast(joined(b, runs), WORDS)


def _placed_scalar(b: KernelBuilder, keep: int, part: Value, pattern: Value) -> Value:
    number, words = pattern & NUMBERS - 1, controls(keep)
    control = b.const(words[0], i32)
    for index, word in enumerate(words[1:], 1):
        control = b.select(number.eq(index), b.const(word, i32), control)
    found = b.const(0, i32)
    for j in range(RUN):
        place = (control.shr(8 * j) & 0xFF) << 3
        found = found | (part.shr(place) & 0xFF) << 8 * j
    return found


def clean_codes(layout: TileLayout, word: Word) -> Iterator[Value]:
    """The stored codes of a step, 4 at a time, out of the vectors `word(piece, vector)`.

    Yields what `word` gives, i32 or lanes of i32, with a code in each byte.
    """
    loaded: dict[int, Value] = {}
    for column in range(layout.kept // 4):
        whole: Value | None = None
        for piece, width in enumerate(layout.widths):
            vector, plane = divmod(column, 8 // width)
            if plane == 0:
                loaded[piece] = word(piece, vector)
            part = loaded[piece].shr(plane * width) if plane else loaded[piece]
            part = part & 0x01010101 * (2**width - 1) if width < 8 else part
            whole = part if whole is None else whole | part << layout.shift(piece)
        assert whole is not None
        yield whole
