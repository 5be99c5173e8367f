"""Instructions of Hopper: barriers that count bytes, copies of boxes, products of warpgroups.

PTX ISA, sections "mbarrier", "cp.async.bulk.tensor" and "Asynchronous warpgroup level matrix
instructions".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import f32, i32, i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder

WARPS = 4
"""Warps of a warpgroup, each of which has 16 of the 64 rows of a product."""
SPAN = 128
"""Bytes of a row of a box: what the widest swizzle exchanges chunks within."""
ALIGNMENT = 1024
"""Of a box with that swizzle: 8 rows."""
BARRIER_BYTES = 8
_SWIZZLED = 1 << 62 | ALIGNMENT >> 4 << 32 | 1 << 16
"""A descriptor but for the address: that swizzle, the distance of 8 rows, and what is not read."""


@dataclass(frozen=True)
class Barrier:
    """An mbarrier in shared memory, by its address as i32."""

    b: GpuBuilder
    address: Value

    def initialize(self, arrivals: int) -> None:
        """One thread makes it, for so many arrivals of a phase."""
        self._do(f"mbarrier.init.shared::cta.b64 [$0], {arrivals};")

    def arrive(self) -> None:
        """One arrival."""
        self._do("mbarrier.arrive.shared::cta.b64 _, [$0];")

    def expect(self, size: int) -> None:
        """One arrival, and so many bytes that the phase will wait for."""
        self._do(f"mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], {size};")

    def wait(self, parity: Value) -> None:
        """Until the phase of a parity, 0 for the first, is complete."""
        poll = "mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1;"
        text = f"{{.reg .pred done; again: {poll} @done bra over; bra again; over:}}"
        self.b.ptx(text, (), [self.address, parity], effects=True)

    def copy_box(self, target: Value, source: Value, column: Value, row: Value) -> None:
        """A box of a tensor map to an address in shared memory, its bytes counted here."""
        text = (
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
            "[$0], [$1, {$2, $3}], [$4];"
        )
        self.b.ptx(text, (), [target, source, column, row, self.address], effects=True)

    def _do(self, text: str) -> None:
        self.b.ptx(text, (), [self.address], effects=True)


def limit_registers(b: GpuBuilder, count: int, *, more: bool) -> None:
    """All threads of a warpgroup have so many registers from here on, more or fewer than before."""
    b.ptx(f"setmaxnreg.{'inc' if more else 'dec'}.sync.aligned.u32 {count};", effects=True)


def publish_barriers(b: GpuBuilder) -> None:
    """What was initialized is seen by copies and by other threads, once these met."""
    b.ptx("fence.mbarrier_init.release.cluster;", effects=True)


def shared_address(b: GpuBuilder, pointer: Value) -> Value:
    """The address of a place in shared memory, i32."""
    return b.ptx("mov.b32 $0, $1;", [i32], [pointer])[0]


def describe(b: GpuBuilder, address: Value) -> Value:
    """The descriptor of a matrix of rows of 128 bytes that were copied with the widest swizzle."""
    return b.zext(address.shr(4), i64) + b.const(_SWIZZLED, i64)


@dataclass(frozen=True)
class Product:
    """Adds `rows @ box` to some sums: the registers of 64 x 16 floats of a warpgroup, and the
    descriptor of 16 columns of all tokens.

    index: which of the sums.
    """

    index: int
    rows: Sequence[Value]
    box: Value


def multiply(
    b: GpuBuilder,
    dtype: str,
    sums: Sequence[Sequence[Value]],
    work: Sequence[Product],
    *,
    anew: bool = False,
    place: Value | None = None,
) -> list[list[Value]]:
    """The sums after some products, which are complete; of f32, 4 a lane for 8 tokens.

    anew: whether sums begin at nothing, whatever they are. place: any pointer; then new sums take
    the registers of those given. For that it is tested whether it is null, which ptxas cannot know
    that it never is; else ptxas has several such sums at once, and spills.
    """
    size = len(sums[0])
    total = len(sums) * size
    before = [] if anew and place is None else [one for row in sums for one in row]
    operands: list[Value] = []
    first = total + len(before)
    known = "b32 no, 1, 0" if place is None else f"b64 no, ${first}, 0"
    operands += [] if place is None else [place]
    lines = [f".reg .pred yes, no; setp.eq.b32 yes, 0, 0; setp.eq.{known};"]
    lines.append("wgmma.fence.sync.aligned;")
    begun: set[int] = set()
    for one in work:
        d, a = _group(one.index * size, size), _group(first + len(operands), 4)
        operands += [*one.rows, one.box]
        keeps = "yes" if not anew or one.index in begun else "no"
        begun.add(one.index)
        kind = f"m64n{2 * size}k16.f32.{dtype}.{dtype}"
        box = f"${first + len(operands) - 1}"
        lines.append(f"wgmma.mma_async.sync.aligned.{kind} {d}, {a}, {box}, {keeps}, 1, 1, 0;")
    lines += ["wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned 0;"]
    text = "{" + " ".join(lines) + "}"
    made = b.ptx(text, [f32] * total, operands, changed=before, effects=True)
    return [made[i : i + size] for i in range(0, total, size)]


def _group(first: int, count: int) -> str:
    return "{" + ", ".join(f"${first + i}" for i in range(count)) + "}"
