"""The CUDA driver: its calls with errors raised, what it says of a device, kernels loaded into it.

Everything goes through `cuda.bindings.driver` (or an object like it, as the tests have), but for
the encoding of tensor maps: cuda-bindings 13.0 hands the driver a descriptor that is not aligned
to the 64 bytes which that call demands.
"""

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from nybble.backends.gpu.arch import IMAGINED
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.lookup import EXTENSION
from nybble.dialects.errors import NybbleError

LIBRARY = "libcuda.so.1"
NO_BINDINGS = "pip install 'nybble[gpu]'"
NO_DRIVER = "apt install nvidia-driver-580, or a newer one, or a container that is given the GPU"
NO_DEVICE = "a machine with an NVIDIA GPU that CUDA_VISIBLE_DEVICES does not hide"
_LOG_BYTES = 16384
_UNSUPPORTED_PTX = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
_SHARED_BY_DEFAULT = 48 * 1024


class GpuError(NybbleError):
    """A GPU, its driver or a tool of its toolkit that is missing or that refused something."""


@dataclass(frozen=True)
class Device:
    """A GPU. capability: (9, 0) for an H100. shared: bytes that a block may ask for. l2: bytes."""

    number: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared: int
    l2: int

    @property
    def arch(self) -> str:
        """ "sm_90" for capability 9.0."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


class Driver:
    """An initialized driver; `api` is `cuda.bindings.driver` or stands for it."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> Any:
        """The result of a driver function (None, a value or a tuple); raises GpuError."""
        code, *results = getattr(self.api, name)(*arguments)
        if int(code) != 0:
            raise _refused(name, code.name)
        return results[0] if len(results) == 1 else (tuple(results) or None)

    @property
    def version(self) -> tuple[int, int]:
        """The CUDA version that the driver was made for, such as (13, 0)."""
        number: int = self.call("cuDriverGetVersion")
        return number // 1000, number % 1000 // 10

    def device(self, number: int = 0) -> Device:
        """What the driver says of GPU `number`; raises GpuError."""
        handle = self.call("cuDeviceGet", number)
        name: bytes = self.call("cuDeviceGetName", 256, handle)

        def attribute(key: str) -> int:
            kind = getattr(self.api.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{key}")
            return self.call("cuDeviceGetAttribute", kind, handle)

        capability = (
            attribute("COMPUTE_CAPABILITY_MAJOR"),
            attribute("COMPUTE_CAPABILITY_MINOR"),
        )
        return Device(
            number,
            name.split(b"\0")[0].decode(),
            capability,
            attribute("MULTIPROCESSOR_COUNT"),
            attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
            attribute("L2_CACHE_SIZE"),
        )

    def enter(self, number: int) -> None:
        """Makes the primary context of GPU `number`, which torch and CuPy use, the current one."""
        handle = self.call("cuDeviceGet", number)
        context = self.call("cuDevicePrimaryCtxRetain", handle)
        self.call("cuCtxSetCurrent", context)

    def load(self, image: KernelImage, device: Device, code: bytes | None = None) -> "Loaded":
        """A kernel in the current context, from its PTX or from `code`, a cubin of it.

        Raises GpuError: the device is of another architecture, the driver too old for the PTX,
        the PTX does not compile (with the compiler's words), too much shared memory.
        """
        check_arch(image, device)
        function = self._function(image, code)
        if image.shared > device.shared:
            raise GpuError(
                f"kernel '{image.name}' needs {image.shared} bytes of shared memory",
                accepted=f"at most {device.shared}, what a block of {device.name} can have",
            )
        if image.shared > _SHARED_BY_DEFAULT:
            key = self._attribute("MAX_DYNAMIC_SHARED_SIZE_BYTES")
            self.call("cuFuncSetAttribute", function, key, image.shared)
        figures = {
            name: self.call("cuFuncGetAttribute", self._attribute(key), function)
            for name, key in (("registers", "NUM_REGS"), ("local", "LOCAL_SIZE_BYTES"))
        }
        static = self.call("cuFuncGetAttribute", self._attribute("SHARED_SIZE_BYTES"), function)
        return Loaded(function, figures["registers"], figures["local"], static + image.shared)

    def _attribute(self, key: str) -> Any:
        return getattr(self.api.CUfunction_attribute, f"CU_FUNC_ATTRIBUTE_{key}")

    def _function(self, image: KernelImage, code: bytes | None) -> Any:
        log = bytearray(_LOG_BYTES)
        option = self.api.CUjit_option
        options = [option.CU_JIT_ERROR_LOG_BUFFER, option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
        data = image.ptx.encode() + b"\0" if code is None else code
        result, module = self.api.cuModuleLoadDataEx(data, len(options), options, [log, len(log)])
        if int(result) != 0:
            said = log.split(b"\0")[0].decode("utf-8", "replace").strip()
            raise self._not_loaded(image, result.name, said)
        return self.call("cuModuleGetFunction", module, image.name.encode())

    def _not_loaded(self, image: KernelImage, result: str, log: str) -> GpuError:
        if result == _UNSUPPORTED_PTX:
            found = re.search(r"^\s*\.version\s+(\S+)", image.ptx, re.MULTILINE)
            version = found[1] if found else "unknown"
            cuda = "{}.{}".format(*self.version)
            return GpuError(
                f"the driver, made for CUDA {cuda}, is too old for PTX {version} of kernel"
                f" '{image.name}'",
                accepted=f"a newer driver, or a cubin made by ptxas for {image.arch}",
            )
        words = f": {log}" if log else ""
        return GpuError(f"kernel '{image.name}' for {image.arch} does not load: {result}{words}")


@dataclass(frozen=True)
class Loaded:
    """A function in the current context.

    local: bytes of spills and arrays of a thread; shared: static and dynamic bytes of a block.
    """

    function: Any
    registers: int
    local: int
    shared: int


def check_real(arch: str) -> None:
    """Raises GpuError for an architecture that simulations alone have."""
    if arch in IMAGINED:
        raise GpuError(
            f"a kernel for '{arch}' has instructions that no hardware has",
            accepted="the simulator, or an architecture without " + EXTENSION,
        )


def check_arch(image: KernelImage, device: Device) -> None:
    """Raises GpuError if the device cannot run code for the image's architecture.

    "sm_90a" runs on capability 9.0 alone, "sm_100f" on that family, "sm_80" on 8.0 and later.
    """
    check_real(image.arch)
    found = re.fullmatch(r"sm_(\d+)(\d)([af]?)", image.arch)
    if not found:
        raise GpuError(f"kernel '{image.name}' is for '{image.arch}'", accepted="sm_90a and alike")
    wanted = int(found[1]), int(found[2])
    later = device.capability >= wanted
    runs = {
        "a": device.capability == wanted,
        "f": later and device.capability[0] == wanted[0],
        "": later,
    }
    if not runs[found[3]]:
        raise GpuError(
            f"kernel '{image.name}' is for {image.arch}, but {device.name} is {device.arch}",
            accepted=f"a kernel compiled for {device.arch}",
        )


def _refused(name: str, result: str) -> GpuError:
    if result == "CUDA_ERROR_NO_DEVICE":
        return GpuError("the NVIDIA driver sees no GPU", accepted=NO_DEVICE)
    if result in ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "CUDA_ERROR_STUB_LIBRARY"):
        return GpuError(f"the NVIDIA driver does not work: {result}", accepted=NO_DRIVER)
    if result == "CUDA_ERROR_INVALID_DEVICE":
        return GpuError("there is no GPU of that number", accepted=NO_DEVICE)
    return GpuError(f"{name} failed: {result}")


def bindings() -> Any:
    """`cuda.bindings.driver`; raises GpuError where the package is missing."""
    try:
        return import_module("cuda.bindings.driver")
    except ImportError:
        raise GpuError("the package cuda-bindings is not installed", accepted=NO_BINDINGS) from None


def start(find: Callable[[], Any] = bindings) -> Driver:
    """An initialized driver; raises GpuError: no bindings, no driver, no device."""
    api = find()
    try:
        return Driver(api)
    except RuntimeError as error:  # what cuda-bindings raise where there is no libcuda
        raise GpuError(f"there is no NVIDIA driver: {error}", accepted=NO_DRIVER) from None


@cache
def installed() -> Driver:
    """The driver of this machine, started once; raises GpuError."""
    return start()


@cache
def library() -> ctypes.CDLL:
    """The driver's own library, for the one call that the bindings get wrong; raises GpuError."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise GpuError(f"there is no NVIDIA driver: {error}", accepted=NO_DRIVER) from None
