"""llama.cpp's libraries as the Python package llama-cpp-python brings them (the bench extra).

`llama()` is the package's low-level module; `ggml()` is the C interface of the tensor library in
it, of which the package declares nothing. Both raise UnavailableError where the package is missing.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from nybble.tools.bench.errors import UnavailableError

INSTALL = "pip install 'nybble[bench]'"
MAX_CPUS = 512  # GGML_MAX_N_THREADS in ggml.h

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_LONG, _TEXT, _BOOL = ctypes.c_int64, ctypes.c_char_p, ctypes.c_bool
_FLOAT = ctypes.c_float


class InitParams(ctypes.Structure):
    """struct ggml_init_params: a context of `mem_size` bytes for descriptions of tensors."""

    _fields_ = (("mem_size", _SIZE), ("mem_buffer", _POINTER), ("no_alloc", _BOOL))


class ThreadpoolParams(ctypes.Structure):
    """struct ggml_threadpool_params."""

    _fields_ = (
        ("cpumask", _BOOL * MAX_CPUS),
        ("n_threads", _INT),
        ("prio", _INT),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", _BOOL),
        ("paused", _BOOL),
    )


class BufferOverride(ctypes.Structure):
    """struct llama_model_tensor_buft_override: tensors matching a pattern go to a buffer type."""

    _fields_ = (("pattern", _TEXT), ("buffer_type", _POINTER))


# name -> result, arguments; from ggml.h, ggml-alloc.h, ggml-backend.h and ggml-cpu.h.
SIGNATURES: dict[str, tuple[Any, Sequence[Any]]] = {
    "ggml_backend_alloc_ctx_tensors_from_buft": (_POINTER, (_POINTER, _POINTER)),
    "ggml_backend_buffer_free": (None, (_POINTER,)),
    "ggml_backend_buffer_get_base": (_POINTER, (_POINTER,)),
    "ggml_backend_buft_alloc_buffer": (_POINTER, (_POINTER, _SIZE)),
    "ggml_backend_buft_name": (_TEXT, (_POINTER,)),
    "ggml_backend_cpu_init": (_POINTER, ()),
    "ggml_backend_cpu_reg": (_POINTER, ()),
    "ggml_backend_cpu_set_n_threads": (None, (_POINTER, _INT)),
    "ggml_backend_cpu_set_threadpool": (None, (_POINTER, _POINTER)),
    "ggml_backend_free": (None, (_POINTER,)),
    "ggml_backend_get_default_buffer_type": (_POINTER, (_POINTER,)),
    "ggml_backend_graph_compute": (_INT, (_POINTER, _POINTER)),
    "ggml_backend_reg_dev_get": (_POINTER, (_POINTER, _SIZE)),
    "ggml_backend_reg_get_proc_address": (_POINTER, (_POINTER, _TEXT)),
    "ggml_backend_supports_op": (_BOOL, (_POINTER, _POINTER)),
    "ggml_backend_tensor_alloc": (_INT, (_POINTER, _POINTER, _POINTER)),
    "ggml_backend_tensor_get": (None, (_POINTER, _POINTER, _SIZE, _SIZE)),
    "ggml_backend_tensor_set": (None, (_POINTER, _POINTER, _SIZE, _SIZE)),
    "ggml_build_forward_expand": (None, (_POINTER, _POINTER)),
    "ggml_flash_attn_ext": (
        _POINTER,
        (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _FLOAT, _FLOAT, _FLOAT),
    ),
    "ggml_free": (None, (_POINTER,)),
    "ggml_graph_overhead_custom": (_SIZE, (_SIZE, _BOOL)),
    "ggml_init": (_POINTER, (InitParams,)),
    "ggml_mul_mat": (_POINTER, (_POINTER, _POINTER, _POINTER)),
    "ggml_nbytes": (_SIZE, (_POINTER,)),
    "ggml_new_graph_custom": (_POINTER, (_POINTER, _SIZE, _BOOL)),
    "ggml_new_tensor_2d": (_POINTER, (_POINTER, _INT, _LONG, _LONG)),
    "ggml_new_tensor_3d": (_POINTER, (_POINTER, _INT, _LONG, _LONG, _LONG)),
    "ggml_tensor_overhead": (_SIZE, ()),
    "ggml_threadpool_free": (None, (_POINTER,)),
    "ggml_threadpool_new": (_POINTER, (ctypes.POINTER(ThreadpoolParams),)),
    "ggml_threadpool_params_default": (ThreadpoolParams, (_INT,)),
}


@cache
def llama() -> Any:
    """The module llama_cpp.llama_cpp, silenced and initialized."""
    try:
        module = import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnavailableError(f"llama.cpp is not installed ({reason})", accepted=INSTALL) from None
    module.llama_log_set(_silence(module), None)
    module.llama_backend_init()
    return module


@cache
def _silence(module: Any) -> Any:
    """A log callback that drops everything; cached, since the library keeps its address."""

    def drop(_level: int, _text: bytes, _data: object) -> None: ...

    return module.llama_log_callback(drop)


@cache
def ggml() -> Any:
    """The functions of SIGNATURES, declared, on the very library that `llama()` has loaded."""
    library = llama()._lib  # its handle reaches the libraries of ggml that it depends on
    for name, (result, arguments) in SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise UnavailableError(
                f"this llama.cpp has no function {name}", accepted=INSTALL
            ) from None
        function.restype, function.argtypes = result, list(arguments)
    return library


@cache
def extra_buffer_types() -> dict[str, int]:
    """Name -> address of the buffer types that rearrange weights (CPU_REPACK, AMX, ..)."""
    library = ggml()
    registry = library.ggml_backend_cpu_reg()
    address = library.ggml_backend_reg_get_proc_address(
        registry, b"ggml_backend_dev_get_extra_bufts"
    )
    if not address:
        return {}
    list_types = ctypes.CFUNCTYPE(ctypes.POINTER(_POINTER), _POINTER)(address)
    found = list_types(library.ggml_backend_reg_dev_get(registry, 0))
    names: dict[str, int] = {}
    index = 0
    while found and found[index]:
        names[library.ggml_backend_buft_name(found[index]).decode()] = found[index]
        index += 1
    return names


def library_version() -> str:
    """The version of the Python package."""
    return str(import_module("llama_cpp").__version__)
