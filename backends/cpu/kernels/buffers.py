"""Flat memrefs as seen by a kernel: element and vector access, views as another type, pointers."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import arith, llvm, memref, vector
from xdsl.dialects.builtin import IntegerAttr, MemRefType
from xdsl.ir import Attribute, BlockArgument

from nybble.backends.building.values import Operand, Value, i1, i8, i64, index, vec, with_element
from nybble.dialects import upstream
from nybble.dialects.atomics import AtomicRMWOp, Change, CmpXchgOp, Ordering

_PREFETCH = {locality: upstream.prefetch_properties(locality) for locality in range(4)}
_WORD = IntegerAttr(8, i64)  # bytes: what an atomic access is aligned to


def _ordered(ordering: Ordering) -> dict[str, Attribute]:
    return {"ordering": IntegerAttr(int(ordering), i64), "alignment": _WORD}


_ACQUIRE, _RELEASE = _ordered(Ordering.ACQUIRE), _ordered(Ordering.RELEASE)
_FETCH_ADD: dict[str, Attribute] = {
    "bin_op": IntegerAttr(int(Change.ADD), i64),
    "ordering": IntegerAttr(int(Ordering.MONOTONIC), i64),
}
_BYTES = {"i8": 1, "f16": 2, "bf16": 2, "i16": 2, "i32": 4, "f32": 4, "i64": 8, "f64": 8}


def byte_width(element: Attribute) -> int:
    """Bytes of one element of a buffer; KeyError for a type that buffers cannot have."""
    return _BYTES[str(element)]


@dataclass(frozen=True)
class BufferSpec:
    """A buffer argument of a kernel: `size` elements of `dtype` (f32, f16, bf16, i8, i32, ..)."""

    name: str
    size: int
    dtype: Attribute

    @property
    def type(self) -> MemRefType:
        """The flat static memref."""
        return MemRefType(self.dtype, [self.size])


class Buffer:
    """A flat memref. Every index is in elements of `dtype`."""

    __slots__ = ("_base", "_is_argument", "dtype", "ref", "size")

    def __init__(self, ref: Value, size: int, dtype: Attribute, base: Operand = 0):
        self.ref = ref
        self.size = size
        self.dtype = dtype
        self._base = base
        self._is_argument = isinstance(ref.ssa, BlockArgument)

    def _at(self, position: Operand) -> tuple[Value, Value]:
        return self.ref, self.ref.emitter.value(position) + self._base

    def part(self, first: Operand, size: int) -> Buffer:
        """`size` elements from `first` on, as a buffer whose indices start at 0."""
        base = self.ref.emitter.value(first) + self._base
        return Buffer(self.ref, size, self.dtype, base)

    def load(self, position: Operand) -> Value:
        """One element."""
        return self.ref.emitter.emit(memref.LoadOp, self._at(position), self.dtype)

    def store(self, value: Value, position: Operand) -> None:
        """Store one element."""
        self.ref.emitter.emit_effect(memref.StoreOp, (value, *self._at(position)))

    def vload(self, position: Operand, lanes: int) -> Value:
        """`lanes` consecutive elements (no alignment needed)."""
        return self.ref.emitter.emit(vector.LoadOp, self._at(position), vec(lanes, self.dtype))

    def vstore(self, value: Value, position: Operand) -> None:
        """Store a vector at consecutive elements (no alignment needed)."""
        self.ref.emitter.emit_effect(vector.StoreOp, (value, *self._at(position)))

    def vload_masked(self, position: Operand, mask: Value, other: Value) -> Value:
        """Elements where the mask bit is set, the lanes of `other` elsewhere (not accessed)."""
        operands = (*self._at(position), mask, other)
        return self.ref.emitter.emit(vector.MaskedLoadOp, operands, other.type)

    def vstore_masked(self, value: Value, position: Operand, mask: Value) -> None:
        """Store the lanes whose mask bit is set."""
        self.ref.emitter.emit_effect(vector.MaskedStoreOp, (*self._at(position), mask, value))

    def gather(self, position: Operand, lane_offsets: Value) -> Value:
        """Elements `position + lane_offsets[lane]`, lane_offsets being a vector of i32."""
        emitter = self.ref.emitter
        result = with_element(lane_offsets.type, self.dtype)
        mask = emitter.const(1, with_element(lane_offsets.type, i1))
        operands = (*self._at(position), lane_offsets, mask, emitter.const(0, result))
        return emitter.emit(upstream.GatherOp, operands, result)

    def load_acquire(self, position: Operand) -> Value:
        """One i64; what the thread that stored it with `store_release` did before is seen."""
        return self.ref.emitter.emit(llvm.LoadOp, (self.pointer(position),), i64, _ACQUIRE)

    def store_release(self, value: Value, position: Operand) -> None:
        """Store one i64; see `load_acquire`."""
        operands = (value, self.pointer(position))
        self.ref.emitter.emit_effect(llvm.StoreOp, operands, _RELEASE)

    def fetch_add(self, value: Value, position: Operand) -> Value:
        """Add to an integer that other threads add to; what it was before."""
        operands = (self.pointer(position), value)
        return self.ref.emitter.emit(AtomicRMWOp, operands, self.dtype, _FETCH_ADD)

    def prefetch(self, position: Operand, locality: int = 3) -> None:
        """Ask for the cache line of an element; any position is allowed. `locality` 0 .. 3."""
        self.ref.emitter.emit_effect(upstream.PrefetchOp, self._at(position), _PREFETCH[locality])

    def view(self, dtype: Attribute, offset: Operand = 0, size: int | None = None) -> Buffer:
        """The bytes from byte `offset` on as `size` elements of `dtype` (default: all of them).

        Only an i8 buffer can be viewed as another type. A constant offset costs nothing.
        """
        assert self.dtype == i8, f"view of a buffer of {self.dtype}"
        if size is None:
            assert isinstance(offset, int)
            size = (self.size - offset) // byte_width(dtype)
        emitter = self.ref.emitter
        at_entry = self._is_argument and isinstance(offset, int) and self._base == 0
        emit = emitter.emit_at_entry if at_entry else emitter.emit
        operands = (self.ref, emitter.value(offset) + self._base)
        return Buffer(emit(memref.ViewOp, operands, MemRefType(dtype, [size])), size, dtype)

    def address(self, position: Operand = 0) -> Value:
        """The address of an element, as an index."""
        base = self.ref.emitter.emit(memref.ExtractAlignedPointerAsIndexOp, (self.ref,), index)
        return base + self._at(position)[1] * byte_width(self.dtype)

    def pointer(self, position: Operand = 0) -> Value:
        """The address of an element as an `!llvm.ptr`."""
        return pointer_to(self.address(position))


def pointer_to(address: Value) -> Value:
    """An address, an index, as an `!llvm.ptr`."""
    bits = address.emitter.emit(arith.IndexCastOp, (address,), i64)
    return address.emitter.emit(llvm.IntToPtrOp, (bits,), llvm.LLVMPointerType())


def take_page(address: Value) -> None:
    """Have the system map the page of an address, for which all its bytes stay as they are.

    An exchange of 0 for 0: it counts as a store, and no optimizer takes it away.
    """
    zero = address.emitter.const(0, i8)
    made = CmpXchgOp(pointer_to(address).ssa, zero.ssa, zero.ssa, Ordering.MONOTONIC)
    address.emitter.block.add_op(made)
