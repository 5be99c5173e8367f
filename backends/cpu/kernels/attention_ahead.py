"""What decode asks memory for before it reads it, where keys and values are numbers.

A core has a few dozen first-level misses under way, which is half of what memory could bring; what
is asked for into the second cache does not count among them. Memory brings by itself what is read
as it lies, but not the first kilobytes of a run, nor anything while nothing is read. Hence, on a
machine that reads as it lies:

- blocks that follow each other: the first values of a block, while its softmax is computed;
- blocks that lie apart: all values of a block while its keys are read, and while values are read
  the keys of the next block, line by line at the same pace.

Others ask into the first cache for what they read next.
"""

from nybble.backends.cpu.kernels.attention_shape import TileShape
from nybble.backends.cpu.kernels.builder import KernelBuilder, Operand, Value
from nybble.backends.cpu.kernels.kv import KEY_BLOCK

LINE = 64
"""Bytes that one prefetch brings."""
SECOND_CACHE = 2
"""The locality of what is asked for into the second cache.

Measured on Zen 4: runs of 32 kB that lie apart are read at 15 GB/s, at 17.5 if the next one is
asked for into the first cache meanwhile, at 26 if into the second; all that lies there at 29.
"""
FIRST_BYTES = 4096
"""Of the values that are asked for during a softmax: 2 to 6 kB gain as much, 8 kB lose 8%."""


class Ahead:
    """Emits prefetches for a tile. blocks: from the block at hand to that which is read next."""

    def __init__(self, b: KernelBuilder, shape: TileShape) -> None:
        self.b, self.shape, self.cache = b, shape, shape.cache
        self.k, self.v = b.buffer("k"), b.buffer("v")
        self.blocks: Operand = 1
        self._step = LINE // shape.cache.element_bytes
        self._decodes = shape.row_block == 1 and not shape.staged

    @property
    def _crosses(self) -> bool:
        return self.shape.as_they_lie and self.shape.apart

    def _keys(self, head: Value, first_key: Value) -> Value:
        return self.cache.key_vector(head, self.cache.slot(self.b, first_key) // KEY_BLOCK, 0)

    def _values(self, head: Value, first_key: Value) -> Value:
        return self.cache.value_row(head, self.cache.slot(self.b, first_key))

    def by_softmax(self, head: Value, first_key: Value, row: Value) -> None:
        """While exponentials of a row are computed: a share of the first values."""
        if not self.shape.as_they_lie or self.shape.apart:
            return
        block = self.shape.key_block * self.cache.head_dim
        share = -(-min(FIRST_BYTES // self.cache.element_bytes, block) // self.shape.rows)
        first = self._values(head, first_key) + row * share
        for at in range(0, share, self._step):
            self.v.prefetch(first + at, SECOND_CACHE)

    def by_keys(
        self, head: Value, first_key: Value, read: tuple[Value, int, int], places: list[Value]
    ) -> None:
        """While vectors of keys are read, which lie at `places`.

        read: the component, which vector of a block is the first, and which turn of a loop it is.
        """
        component, vector, turn = read
        if self._crosses:
            if turn % (self._step // KEY_BLOCK) == 0:
                line = component + vector * self.cache.head_dim
                self.v.prefetch(self._values(head, first_key) + line * KEY_BLOCK, SECOND_CACHE)
        elif self._decodes and not self.shape.as_they_lie:
            for place in places:
                self.k.prefetch(place + self._to_next(vector, len(places)))

    def _to_next(self, vector: int, vectors: int) -> Operand:
        """Elements to the keys after those vectors, after the last ones to the next block."""
        size, of_block = KEY_BLOCK * self.cache.head_dim, self.shape.key_block // KEY_BLOCK
        if vector + vectors < of_block:
            return vectors * size
        return self.blocks * (of_block * size) - vector * size

    def by_strip(self, head: Value, strip: tuple[Value, Value, int], offset: Value) -> None:
        """While a strip of values is read: a share of the next one in the order of memory, since
        column by column it is slow.

        strip: the first key of the block, which of its values is the first, and how many they are.
        """
        if self.shape.as_they_lie:
            return
        first_key, key, size = strip
        last = key + size >= self.shape.key_block
        jump = self.b.value((self.blocks - 1) * self.shape.key_block + size)
        following = self.cache.slot(self.b, first_key) + (key + self.b.select(last, jump, size))
        first = self.cache.value_row(head, following) + offset * size
        for at in range(0, size * self.shape.value_vectors * KEY_BLOCK, self._step):
            self.v.prefetch(first + at)

    def by_value(self, head: Value, strip: tuple[Value, Value, int], row: Value, turn: int) -> None:
        """While one value of a strip is read for a tile of rows; see `by_strip`."""
        if not self._crosses:
            return
        first_key, key, size = strip
        width, rows = self.cache.head_dim, self.shape.value_rows
        share = -(-size * width // (self._step * (self.shape.rows // rows)))
        first = self._keys(head, first_key) + (self.blocks * self.shape.key_block + key) * width
        first = first + row // rows * (share * self._step)
        for line in range(turn * share // size, (turn + 1) * share // size):
            self.k.prefetch(first + line * self._step, SECOND_CACHE)
