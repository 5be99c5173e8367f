"""CUDA C++ to PTX or a cubin by NVRTC: no GPU, driver or toolkit needed, only its wheels."""

import ctypes
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nybble.backends.gpu.driver import GpuError, check_real

_REMEDY = (
    "pip install nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.88 nvidia-cuda-crt==13.0.88"
)
_LIBRARY = "libnvrtc.so.13"
_RESULTS = {
    "ptx": ("nvrtcGetPTXSize", "nvrtcGetPTX"),
    "cubin": ("nvrtcGetCUBINSize", "nvrtcGetCUBIN"),
}


def _wheel() -> Path | None:
    spec = find_spec("nvidia")
    roots = spec.submodule_search_locations if spec else None
    for root in roots or ():
        if (Path(root) / "cu13/lib" / _LIBRARY).is_file():
            return Path(root) / "cu13"
    return None


@cache
def _library() -> ctypes.CDLL:
    wheel = _wheel()
    try:
        for builtins in wheel.glob("lib/libnvrtc-builtins.so*") if wheel else ():
            ctypes.CDLL(str(builtins))  # NVRTC then finds them by name, wherever they lie
        return ctypes.CDLL(str(wheel / "lib" / _LIBRARY) if wheel else _LIBRARY)
    except OSError:
        raise GpuError("the library NVRTC is not installed", accepted=_REMEDY) from None


def version() -> tuple[int, int]:
    """NVRTC's version, such as (13, 0); raises GpuError."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def headers() -> Iterator[Path]:
    """The folders in which `cuda_fp16.h` and alike lie."""
    wheel = _wheel()
    for place in (wheel, Path("/usr/local/cuda")):
        if place and (place / "include/cuda_fp16.h").is_file():
            yield place / "include"


def compile_cuda(
    source: str, arch: str, *, want: str = "ptx", options: tuple[str, ...] = ()
) -> bytes:
    """A translation unit compiled for `arch` ("sm_90a"); want: "ptx" or "cubin".

    Raises GpuError with the compiler's words, or where NVRTC is missing.
    """
    check_real(arch)
    library, program = _library(), ctypes.c_void_p()
    _check(
        library,
        library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
        ),
    )
    try:
        architecture = arch if want == "cubin" else arch.replace("sm_", "compute_")
        flags = [f"--gpu-architecture={architecture}", "--std=c++17", *options]
        flags += [f"-I{os.fspath(folder)}" for folder in headers()]
        table = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        if library.nvrtcCompileProgram(program, len(flags), table) != 0:
            said = _fetch(library, program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
            raise GpuError(f"NVRTC refuses the source for {arch}: {said.rstrip(bytes(1)).decode()}")
        return _fetch(library, program, *_RESULTS[want])
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _fetch(library: ctypes.CDLL, program: ctypes.c_void_p, size: str, get: str) -> bytes:
    count = ctypes.c_size_t()
    _check(library, getattr(library, size)(program, ctypes.byref(count)))
    room = ctypes.create_string_buffer(count.value)
    _check(library, getattr(library, get)(program, room))
    return room.raw


def _check(library: ctypes.CDLL, code: int) -> None:
    if code != 0:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise GpuError(f"NVRTC failed: {library.nvrtcGetErrorString(code).decode()}")
