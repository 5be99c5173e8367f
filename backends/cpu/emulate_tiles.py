"""AMX tiles spelled out: a buffer of the process in place of the registers, for one thread.

A tile is 16 rows of 64 bytes. Numbers that are denormal count as zero, as they do in the
instruction; a result that is denormal is kept, which the instruction flushes. Source: Intel SDM
volume 2, TILELOADD, TILESTORED, TDPBF16PS.
"""

from collections.abc import Callable, Mapping, Sequence

from xdsl.dialects import llvm, memref
from xdsl.dialects.builtin import IntegerAttr, MemRefType, StringAttr, SymbolRefAttr, UnitAttr
from xdsl.ir import Operation

from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import Expressions, Value, f32, i8, i32, i64, vec

NAME = "emulated_tiles"
ROWS, ROW = 16, 64
TILE = ROWS * ROW
_TYPE = MemRefType(i8, [8 * TILE])
_WORDS, _FLOATS = vec(ROW // 4, i32), vec(ROW // 4, f32)
_EXPONENT = 0x7F800000
_UNALIGNED = {"ordering": IntegerAttr(0, i64), "alignment": IntegerAttr(1, i64)}

Effect = Callable[[Expressions, Sequence[Value]], None]
"""(where to build, operands) -> nothing; what it does is in the tiles and in memory."""


def tiles_of() -> Operation:
    """The buffer of eight tiles that the effects refer to."""
    return memref.GlobalOp.get(StringAttr(NAME), _TYPE, UnitAttr())


def _tiles(b: Expressions) -> Buffer:
    """The bytes of all tiles."""
    found = b.emit(memref.GetGlobalOp, (), _TYPE, {"name": SymbolRefAttr(NAME)})
    return Buffer(found, 8 * TILE, i8)


def _nothing(b: Expressions, operands: Sequence[Value]) -> None:
    """LDTILECFG, TILERELEASE: kernels give all tiles all rows."""


def _load(b: Expressions, operands: Sequence[Value]) -> None:
    """TILELOADD: rows of 64 bytes, `stride` bytes apart."""
    number, source, stride = operands
    tile, at = _tiles(b), b.to_index(number) * TILE
    for row in range(ROWS):
        value = b.emit(llvm.LoadOp, (_row(b, source, stride, row),), _WORDS, _UNALIGNED)
        tile.view(i32).vstore(value, at // 4 + row * (ROW // 4))


def _store(b: Expressions, operands: Sequence[Value]) -> None:
    """TILESTORED."""
    number, target, stride = operands
    tile, at = _tiles(b), b.to_index(number) * TILE
    for row in range(ROWS):
        value = tile.view(i32).vload(at // 4 + row * (ROW // 4), ROW // 4)
        b.emit_effect(llvm.StoreOp, (value, _row(b, target, stride, row)), _UNALIGNED)


def _row(b: Expressions, start: Value, stride: Value, row: int) -> Value:
    bits = b.emit(llvm.PtrToIntOp, (start,), i64)
    return b.emit(llvm.IntToPtrOp, (bits + stride * row,), llvm.LLVMPointerType())


def _multiply(b: Expressions, operands: Sequence[Value]) -> None:
    """TDPBF16PS: products of even and of odd columns are summed apart, then added to the sums."""
    sums, left, right = (b.to_index(number) * (TILE // 4) for number in operands)
    words, floats = _tiles(b).view(i32), _tiles(b).view(f32)
    lanes = ROW // 4
    with b.for_(0, ROWS) as row:
        start = [b.const(0.0, _FLOATS)] * 2
        with b.for_(0, lanes, inits=start) as loop:
            one = b.broadcast(words.load(left + row.iv * lanes + loop.iv), lanes)
            many = words.vload(right + loop.iv * lanes, lanes)
            pairs = zip(_halves(b, one), _halves(b, many), loop.args, strict=True)
            loop.yield_(*(b.fma(x, y, total) for x, y, total in pairs))
        at = sums + row.iv * lanes
        even, odd = loop.results
        floats.vstore(floats.vload(at, lanes) + (even + odd), at)


def _halves(b: Expressions, words: Value) -> tuple[Value, Value]:
    """Both bf16 of i32 lanes as f32."""
    low, high = (_normal(b, half) for half in (words << 16, words & -0x10000))
    return low, high


def _normal(b: Expressions, bits: Value) -> Value:
    kept = b.select((bits & _EXPONENT).eq(0), b.const(0, _WORDS), bits)
    return b.bitcast(kept, _FLOATS)


EFFECTS: Mapping[str, Effect] = {
    "llvm.x86.ldtilecfg": _nothing,
    "llvm.x86.tilerelease": _nothing,
    "llvm.x86.tileloadd64": _load,
    "llvm.x86.tilestored64": _store,
    "llvm.x86.tdpbf16ps": _multiply,
}
"""Intrinsic without a result -> what it does."""
