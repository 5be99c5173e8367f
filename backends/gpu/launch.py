"""Kernels launched on torch's or CuPy's arrays and streams, without a copy, also into CUDA graphs.

    kernel = Kernel(image)                       # once: loads it into the driver
    kernel(a, weight, scales, out)               # on the current stream of the arrays' library
    kernel.on(stream, {"a": a, ..})              # on a stream of one's own

A launch neither allocates nor waits, so that it can be captured.
"""

import ctypes
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from nybble.backends.gpu.arrays import DeviceArray, device_array
from nybble.backends.gpu.driver import Driver, GpuError, installed, library
from nybble.backends.gpu.image import Access, Boxes, KernelImage, Parameter

_NUMBERS = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "f32": ctypes.c_float}
_MAP_TYPES = {"u8": 0, "u16": 1, "u32": 2, "i32": 3, "f16": 6, "f32": 7, "bf16": 9}
_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}
_L2_PROMOTION_256 = 3
_MAP_BYTES, _MAP_ALIGNMENT = 128, 64


@dataclass(frozen=True)
class TensorMap:
    """What the tensor memory accelerator copies: boxes of a tensor, its fastest axis first.

    dims, box: elements; strides: bytes, of every axis but the first; swizzle: 0, 32, 64 or 128.
    """

    array: Any
    dtype: str
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int = 0


class Kernel:
    """A kernel in the driver, ready to be launched; `loaded` has its registers and shared bytes."""

    def __init__(
        self,
        image: KernelImage,
        device: int = 0,
        code: bytes | None = None,
        driver: Driver | None = None,
        clear: bool = True,
    ) -> None:
        """Loads the image's PTX, or `code`, its cubin, into GPU `device`; raises GpuError.

        clear: fill with zeros, before each launch, what the image wants to be so; who gives
        buffers of zeros that every launch leaves as zeros can do without.
        """
        self.image = image
        self._zeroed = image.zeroed if clear else ()
        self._driver = driver or installed()
        self._driver.enter(device)
        self._device = self._driver.device(device)
        self.loaded = self._driver.load(image, self._device, code)

    def __call__(self, *arguments: Any) -> None:
        """Launches on the current stream of the library that the arrays are of."""
        self.on(current_stream(arguments), self.bind(arguments))

    def bind(self, arguments: Sequence[Any]) -> dict[str, Any]:
        """Positional arguments by name; raises GpuError for a wrong count."""
        names = [parameter.name for parameter in self.image.parameters]
        if len(arguments) != len(names):
            raise GpuError(
                f"kernel '{self.image.name}' got {len(arguments)} arguments",
                accepted=f"{len(names)}: {', '.join(names)}",
            )
        return dict(zip(names, arguments, strict=True))

    def on(self, stream: int, arguments: Mapping[str, Any]) -> None:
        """Launches on a stream, given as the driver's handle; raises GpuError."""
        cells: list[Any] = []
        for parameter in self.image.parameters:
            if parameter.name not in arguments:
                raise GpuError(f"kernel '{self.image.name}' lacks argument '{parameter.name}'")
            cells.append(self._cell(parameter, arguments[parameter.name], stream))
        addresses = [ctypes.addressof(cell) for cell in cells]
        pointers = (ctypes.c_void_p * len(cells))(*addresses)
        config = self._config(stream)
        self._driver.call(
            "cuLaunchKernelEx", config, self.loaded.function, ctypes.addressof(pointers), 0
        )

    def _cell(self, parameter: Parameter, argument: Any, stream: int) -> Any:
        """The memory that the driver reads the parameter from."""
        if isinstance(argument, TensorMap) != (parameter.dtype == "tensormap"):
            kind = type(argument).__name__
            raise GpuError(f"argument '{parameter.name}' is a {kind}", accepted=parameter.dtype)
        if isinstance(argument, TensorMap):
            return encode(parameter.name, argument)
        if parameter.access is Access.VALUE:
            if not isinstance(argument, int | float):
                kind = type(argument).__name__
                raise GpuError(f"argument '{parameter.name}' is a {kind}", accepted=parameter.dtype)
            return _NUMBERS[parameter.dtype](argument)  # pyright: ignore[reportArgumentType]
        array = device_array(parameter.name, argument)
        self._check(parameter, array)
        if parameter.boxes is not None:
            return encode(parameter.name, boxed(parameter, parameter.boxes, argument))
        if parameter.name in self._zeroed:
            self._driver.call("cuMemsetD8Async", array.address, 0, array.bytes, stream)
        return ctypes.c_void_p(array.address)

    def _check(self, parameter: Parameter, array: DeviceArray) -> None:
        if array.device != self._device.number:
            raise GpuError(
                f"argument '{parameter.name}' is on GPU {array.device}",
                accepted=f"GPU {self._device.number}, where the kernel is",
            )
        if array.bytes < parameter.bytes:
            raise GpuError(
                f"argument '{parameter.name}' has {array.bytes} bytes",
                accepted=f"at least {parameter.bytes}",
            )
        if not _fits(array.dtype, parameter.dtype):
            raise GpuError(
                f"argument '{parameter.name}' has elements {array.dtype}",
                accepted=f"{parameter.dtype}, or bytes as u8",
            )

    def _config(self, stream: int) -> Any:
        api, image = self._driver.api, self.image
        config = api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = image.grid
        config.blockDimX, config.blockDimY, config.blockDimZ = image.block
        config.sharedMemBytes = image.shared
        config.hStream = stream
        if prod(image.cluster) > 1:
            cluster = api.CUlaunchAttribute()
            cluster.id = api.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            dims = cluster.value.clusterDim
            dims.x, dims.y, dims.z = image.cluster
            config.attrs = [cluster]
            config.numAttrs = 1
        return config


def boxed(parameter: Parameter, boxes: Boxes, array: Any) -> TensorMap:
    """What a kernel is given of a buffer that it takes as a tensor map."""
    stride = parameter.bytes // boxes.shape[1]
    return TensorMap(array, parameter.dtype, boxes.shape, (stride,), boxes.box, boxes.swizzle)


def _fits(given: str, wanted: str) -> bool:
    """Bytes fit everything; integers of a width fit each other; floats only themselves."""
    integers = given[0] in "iu" and wanted[0] in "iu"
    return given in (wanted, "u8") or (integers and given[1:] == wanted[1:])


def current_stream(arguments: Sequence[Any]) -> int:
    """The stream on which the library of the first torch or CuPy array works now; else 0.

    Looks the library up among those imported: an array of it cannot come from elsewhere.
    """
    for argument in arguments:
        inner = argument.array if isinstance(argument, TensorMap) else argument
        library_name = type(inner).__module__.partition(".")[0]
        if library_name == "torch":
            return int(sys.modules["torch"].cuda.current_stream(inner.device).cuda_stream)
        if library_name == "cupy":
            return int(sys.modules["cupy"].cuda.get_current_stream().ptr)
    return 0


def encode(name: str, wanted: TensorMap, encoder: Any = None) -> Any:
    """The 128 bytes of a tensor map, aligned as the driver demands; raises GpuError."""
    if wanted.dtype not in _MAP_TYPES or wanted.swizzle not in _SWIZZLES:
        raise GpuError(
            f"tensor map '{name}' has elements {wanted.dtype} and swizzle {wanted.swizzle}",
            accepted=f"{', '.join(_MAP_TYPES)}; {', '.join(map(str, _SWIZZLES))}",
        )
    rank = len(wanted.dims)
    if len(wanted.strides) != rank - 1 or len(wanted.box) != rank:
        raise GpuError(
            f"tensor map '{name}' of rank {rank} has {len(wanted.strides)} strides and a box of"
            f" {len(wanted.box)}",
            accepted=f"{rank - 1} strides and a box of {rank}",
        )
    place = device_array(name, wanted.array)
    room = (ctypes.c_uint8 * (_MAP_BYTES + _MAP_ALIGNMENT))()
    offset = -ctypes.addressof(room) % _MAP_ALIGNMENT
    descriptor = (ctypes.c_uint8 * _MAP_BYTES).from_buffer(room, offset)
    call = encoder or library().cuTensorMapEncodeTiled
    result = call(
        ctypes.byref(descriptor),
        ctypes.c_int(_MAP_TYPES[wanted.dtype]),
        ctypes.c_uint32(rank),
        ctypes.c_void_p(place.address),
        (ctypes.c_uint64 * rank)(*wanted.dims),
        (ctypes.c_uint64 * max(rank - 1, 1))(*wanted.strides),
        (ctypes.c_uint32 * rank)(*wanted.box),
        (ctypes.c_uint32 * rank)(*[1] * rank),
        ctypes.c_int(0),
        ctypes.c_int(_SWIZZLES[wanted.swizzle]),
        ctypes.c_int(_L2_PROMOTION_256),
        ctypes.c_int(0),
    )
    if result != 0:
        raise GpuError(
            f"tensor map '{name}' was refused by the driver with code {result}: dims"
            f" {wanted.dims}, strides {wanted.strides}, box {wanted.box}",
            accepted="an address and strides that are multiples of 16, a box of at most 256",
        )
    return descriptor
