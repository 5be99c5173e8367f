"""A stand-in for `cuda.bindings.driver` that records what it is asked and can refuse it."""

import ctypes
from enum import IntEnum
from types import SimpleNamespace

import pytest


class Result(IntEnum):
    """The results that the tests need, numbered as CUDA numbers them."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_DEVICE = 101
    CUDA_ERROR_INVALID_PTX = 218
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


class Names:
    """An enumeration of which every member is its own name."""

    def __getattr__(self, name):
        return name


ATTRIBUTES = {
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": 9,
    "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": 0,
    "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT": 132,
    "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448,
    "CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE": 50 << 20,
    "CU_FUNC_ATTRIBUTE_NUM_REGS": 40,
    "CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES": 0,
    "CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES": 1024,
}


class FakeDriver:
    """Answers like an H100's driver; `refuse` maps a function to the result it gives instead."""

    Result = Result
    CUjit_option = CUdevice_attribute = CUfunction_attribute = CUlaunchAttributeID = Names()

    def __init__(self, refuse=None, attributes=None, log=b""):
        self.calls = []
        self.launches = []
        self._refuse = refuse or {}
        self._attributes = ATTRIBUTES | (attributes or {})
        self._log = log

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append((name, *arguments))
            if name in self._refuse:
                return self._refused(name, arguments)
            return (Result.CUDA_SUCCESS, *self._results(name, arguments))

        return call

    def _refused(self, name, arguments):
        if name == "cuModuleLoadDataEx":
            arguments[3][0][: len(self._log)] = self._log
        return (self._refuse[name], None)

    def _results(self, name, arguments):
        if name in ("cuDeviceGetAttribute", "cuFuncGetAttribute"):
            return (self._attributes[arguments[0]],)
        if name == "cuLaunchKernelEx":
            config, function, pointers, _ = arguments
            self.launches.append((vars(config), function, pointers))
        return {
            "cuDriverGetVersion": (13000,),
            "cuDeviceGet": arguments[:1],
            "cuDeviceGetName": (b"NVIDIA H100\0\0",),
            "cuDevicePrimaryCtxRetain": ("context",),
            "cuModuleLoadDataEx": ("module",),
            "cuModuleGetFunction": ("function",),
        }.get(name, ())

    @staticmethod
    def CUlaunchConfig():
        """See CUDA."""
        return SimpleNamespace()

    @staticmethod
    def CUlaunchAttribute():
        """See CUDA."""
        return SimpleNamespace(value=SimpleNamespace(clusterDim=SimpleNamespace()))

    def names(self):
        """The functions called, in order."""
        return [call[0] for call in self.calls]

    @staticmethod
    def words(pointers, *types):
        """What lies behind an array of pointers, as numbers of these ctypes types."""
        table = (ctypes.c_void_p * len(types)).from_address(pointers)
        return [kind.from_address(place).value for kind, place in zip(types, table, strict=True)]


@pytest.fixture(scope="session")
def fake_driver():
    """The class FakeDriver."""
    return FakeDriver
