"""What operations do, before a machine's memory levels are known, and how that becomes a cost."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from xdsl.dialects.builtin import DYNAMIC_INDEX, FixedBitwidthType, Float32Type, TensorType
from xdsl.ir import Attribute, SSAValue

from nybble.costmodel.analytic.cost import NOTHING, Cost, Tally
from nybble.costmodel.analytic.traffic import Direction, Stream, traffic
from nybble.costmodel.targets.target import TENSOR_BYTES, Target, Tile
from nybble.dialects.lowbit.formats import Format
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.tables import TableType


@dataclass(frozen=True)
class CostOptions:
    """What the IR leaves open.

    tokens: rows where their number is dynamic. sequences: texts that they belong to, in equal
    parts. cached: tokens of each text that were there before these. cores: None for all. tile: how
    products are cut, None for the target's way. hot: whether weights and caches are still where
    the last run of the same work left them, as in a benchmark that repeats one kernel.
    """

    tokens: int = 512
    sequences: int = 1
    cached: int = 0
    cores: int | None = None
    tile: Tile | None = None
    hot: bool = False

    def rows(self, count: int) -> int:
        """A number of rows, where it is known or not."""
        return self.tokens if count == DYNAMIC_INDEX else count


DEFAULTS = CostOptions()


@dataclass(frozen=True)
class Work:
    """Operations, special functions and streams of bytes; works of one kernel add up."""

    operations: Tally = field(default=Tally())
    special: int = 0
    streams: tuple[Stream, ...] = ()

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.operations + other.operations,
            self.special + other.special,
            self.streams + other.streams,
        )

    @property
    def footprint(self) -> int:
        """Bytes that the work touches."""
        return sum(one.first for one in self.streams)

    def keeping(self, internal: Collection[object]) -> "Work":
        """The same with these values never leaving the cores."""
        kept = (one.at_hand() if one.value in internal else one for one in self.streams)
        return replace(self, streams=tuple(kept))

    def cost(self, target: Target, options: CostOptions) -> Cost:
        """The cost of doing it in one launch."""
        cores = options.cores or int(target.cores.value)
        found = replace(NOTHING, operations=self.operations, special=self.special, launches=1)
        for one in self.streams:
            age = self.footprint if one.age is None and options.hot else one.age
            moved = traffic(replace(one, age=age), target.memory, cores)
            if one.direction == "read":
                found += Cost(read=moved)
            else:
                found += Cost(written=moved)
        return found


def stored_bytes(description: Format, rows: int, cols: int) -> int:
    """Bytes of a matrix as stored; from the bits of a weight where rows have no fixed length."""
    has_rows = description.store != "native" or description.has_codes or description.is_plain
    if has_rows and not description.is_streamed:
        return rows * description.row_bytes(cols)
    return -(-int(rows * cols * description.bits_per_weight) // 8)


def table_bytes(type_: TableType, rows: int) -> int:
    """Bytes of the lookup tables of `rows` tokens, scales left out."""
    entries = 8 if type_.symmetric else 16
    return rows * type_.cols // 4 * entries * type_.entry_bytes


def value_bytes(value: SSAValue, target: Target, options: CostOptions) -> int:
    """Bytes of a value as the target stores it; 0 for what has no shape."""
    type_ = value.type
    if isinstance(type_, LowBitTensorType):
        return stored_bytes(type_.number_format, options.rows(type_.rows), type_.cols)
    if isinstance(type_, TableType):
        return table_bytes(type_, options.rows(type_.rows))
    if not isinstance(type_, TensorType):
        return 0
    return elements(value, options) * element_bytes(type_.element_type, target)


def element_bytes(type_: Attribute, target: Target) -> int:
    """Bytes of an element; f32 is what the target makes of it."""
    if isinstance(type_, Float32Type):
        return TENSOR_BYTES[target.arithmetic.tensors]
    assert isinstance(type_, FixedBitwidthType)
    return type_.size


def elements(value: SSAValue, options: CostOptions) -> int:
    """Elements of a tensor."""
    assert isinstance(value.type, TensorType)
    count = 1
    for size in value.type.get_shape():
        count *= options.rows(size)
    return count


def moved(value: SSAValue, direction: Direction, target: Target, options: CostOptions) -> Stream:
    """A value read or written once, soon after it was made or before it is used."""
    size = value_bytes(value, target, options)
    return Stream(direction, size, value, age=size)


def weights(value: SSAValue, target: Target, options: CostOptions) -> Stream:
    """A parameter read once, long after it was read before."""
    return Stream("read", value_bytes(value, target, options), value)
