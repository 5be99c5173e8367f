"""MLIR types and constants as CUDA C++ spells them.

Integers have no sign of their own in MLIR: they are unsigned here, where sums may wrap, and are
cast to a signed type by the operations that mean one. A pointer into shared memory is the 32-bit
number that PTX takes.
"""

from collections.abc import Mapping

import numpy as np
from xdsl.dialects.builtin import (
    BFloat16Type,
    Float16Type,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    VectorType,
)
from xdsl.ir import Attribute

from nybble.backends.gpu.builder import GLOBAL, SHARED, TENSOR_MAP
from nybble.dialects.errors import InternalError

NAMES: Mapping[str, str] = {
    "i1": "bool", "i8": "uint8_t", "i16": "uint16_t", "i32": "uint32_t", "i64": "uint64_t",
    "f16": "__half", "bf16": "__nv_bfloat16", "f32": "float", "f64": "double",
    str(GLOBAL): "char*", str(SHARED): "uint32_t",
    str(TENSOR_MAP): "const __grid_constant__ TensorMap",
}  # fmt: skip
SIGNED: Mapping[str, str] = {"i8": "int8_t", "i16": "int16_t", "i32": "int", "i64": "int64_t"}
PRELUDE = """\
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using int8_t = signed char;
using int16_t = short;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;

// What the tensor memory accelerator is told of a matrix.
struct alignas(64) TensorMap { char bytes[128]; };

// N values in a row, read and written as one.
template <class T, int N> struct alignas(sizeof(T) * N) Vec { T lane[N]; };

// N equal values; a vector with one other value.
template <class V, class T> __device__ V spread(T value) {
  V made;
  for (T& lane : made.lane) lane = value;
  return made;
}
template <class V, class T> __device__ V with_lane(V vector, int lane, T value) {
  vector.lane[lane] = value;
  return vector;
}

// The same bits as another type.
template <class To, class From> __device__ To cast(From value) {
  static_assert(sizeof(To) == sizeof(From), "types of one size");
  To made;
  memcpy(&made, &value, sizeof(To));
  return made;
}

// Memory: a char* is global, a number is an address of shared memory.
__device__ char* place(char* at) { return at; }
__device__ char* place(uint32_t at) { return (char*)__cvta_shared_to_generic(at); }
template <class T, class P> __device__ T load(P at) { return *(const T*)place(at); }
template <class T, class P> __device__ void store(P at, T value) { *(T*)place(at) = value; }
"""
"""What every file begins with."""
_EXACT_DIGITS = 9


def cpp_type(type_: Attribute) -> str:
    """The C++ type of a value."""
    if isinstance(type_, VectorType):
        (lanes,) = type_.get_shape()
        return f"Vec<{cpp_type(type_.element_type)}, {lanes}>"
    if str(type_) not in NAMES:
        raise InternalError(f"a value of type {type_} in a kernel")
    return NAMES[str(type_)]


def constant_type(type_: Attribute) -> str:
    """The C++ type of a variable that is given its value once."""
    name = cpp_type(type_)
    return f"{name} const" if name.endswith("*") else f"const {name}"


def as_signed(text: str, type_: Attribute) -> str:
    """An unsigned operand as a signed one; a small literal needs no cast."""
    digits = text.rstrip("ul")
    if digits.isdecimal():
        return digits
    return f"({SIGNED[str(type_)]}){text}"


def literal(value: Attribute) -> str:
    """A constant, of exactly its value."""
    if isinstance(value, IntegerAttr):
        return _integer(value.value.data, value.type)
    if isinstance(value, FloatAttr):
        return _float(value.value.data, value.type)
    raise InternalError(f"a constant {value} in a kernel")


def _integer(number: int, type_: Attribute) -> str:
    if not isinstance(type_, IntegerType):
        raise InternalError(f"a constant of type {type_} in a kernel")
    width = type_.width.data
    if width == 1:
        return "true" if number else "false"
    bits = number % (1 << width)
    text = str(bits) if bits < 1 << 16 else hex(bits)
    return (
        f"{text}ull"
        if width == 64
        else f"{text}u"
        if width == 32
        else f"({NAMES[str(type_)]}){text}"
    )


def _float(number: float, type_: Attribute) -> str:
    if isinstance(type_, Float16Type):
        return f"__ushort_as_half({np.float16(number).view(np.uint16):#x})"
    if isinstance(type_, BFloat16Type):
        return f"__ushort_as_bfloat16({np.float32(number).view(np.uint32) >> 16:#x})"
    if not np.isfinite(number):
        bits = np.float32(number).view(np.uint32)
        return f"__int_as_float({bits:#x})"
    single = isinstance(type_, Float32Type)
    text = f"{number:.{_EXACT_DIGITS}g}" if single else repr(number)
    text = text if any(mark in text for mark in ".e") else f"{text}.0"
    return f"{text}f" if single else text
