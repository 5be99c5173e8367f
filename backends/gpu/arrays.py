"""Where an array of torch, CuPy or anything that speaks DLPack lies on a GPU, without a copy."""

import ctypes
from dataclasses import dataclass
from math import prod
from typing import Any

from nybble.backends.gpu.driver import GpuError

CUDA_DEVICES = (2, 3, 13)
"""DLPack's kinds of memory that a GPU reads: CUDA, pinned host, managed."""
NO_SYNCHRONIZATION = -1
"""A stream argument of DLPack: the consumer orders its work itself."""

_KINDS = {0: "i", 1: "u", 2: "f", 4: "bf", 6: "u"}


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h, which a DLManagedTensor begins with."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class DeviceArray:
    """An array on GPU number `device`: `bytes` from `address` on; dtype as in Parameter."""

    address: int
    dtype: str
    bytes: int
    device: int


def device_array(name: str, array: Any) -> DeviceArray:
    """The place of argument `name`; raises GpuError: not an array, not on a GPU, has gaps."""
    if isinstance(array, DeviceArray):
        return array
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(name, array)
    if hasattr(array, "__cuda_array_interface__"):
        return _from_interface(name, array.__cuda_array_interface__)
    raise GpuError(
        f"argument '{name}' is a {type(array).__name__}",
        accepted="an array on a GPU: of torch, of CuPy or with __cuda_array_interface__",
    )


def _from_dlpack(name: str, array: Any) -> DeviceArray:
    kind, number = array.__dlpack_device__()
    if int(kind) not in CUDA_DEVICES:
        raise GpuError(f"argument '{name}' is not in the memory of a GPU", accepted="a CUDA array")
    capsule = array.__dlpack__(stream=NO_SYNCHRONIZATION)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    shape = tensor.shape[: tensor.ndim]
    if tensor.strides:
        _check_dense(name, shape, tensor.strides[: tensor.ndim])
    size = prod(shape) * tensor.dtype.bits * tensor.dtype.lanes // 8
    dtype = f"{_KINDS.get(tensor.dtype.code, '?')}{tensor.dtype.bits}"
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, dtype, size, int(number))


def _from_interface(name: str, interface: dict[str, Any]) -> DeviceArray:
    kind, width = interface["typestr"][1], int(interface["typestr"][2:])
    shape = interface["shape"]
    if interface.get("strides"):
        _check_dense(name, shape, [stride // width for stride in interface["strides"]])
    letter = "u" if kind == "b" else kind
    size = prod(shape) * width
    return DeviceArray(interface["data"][0], f"{letter}{8 * width}", size, 0)


def _check_dense(name: str, shape: Any, strides: Any) -> None:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            raise GpuError(
                f"argument '{name}' has strides {[*strides]} for shape {[*shape]}",
                accepted="a contiguous array",
            )
        expected *= size
