"""A graph of ggml through ctypes: memory, threads, and computing it."""

import ctypes
from collections.abc import Callable
from weakref import finalize

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.libraries import InitParams, ggml

POLL = 50  # ggml's default eagerness of waiting threads, of 100


def type_number(name: str) -> int:
    """ggml's number of a type; raises UnavailableError."""
    try:
        return int(GGMLQuantizationType[name.upper()])
    except KeyError:
        raise UnavailableError(f"llama.cpp has no type {name}") from None


class GgmlGraph:
    """A backend of so many threads, and what is allocated for a graph, until `close`.

    A subclass sets `_graph`.
    """

    _graph: int

    def __init__(self, threads: int) -> None:
        self._library = ggml()
        self._undo: list[tuple[Callable[..., object], int]] = []
        self._close = finalize(self, _undo, self._undo)
        self._backend = self._own(
            self._library.ggml_backend_cpu_init(), self._library.ggml_backend_free
        )
        self._set_threads(threads)

    def close(self) -> None:
        """Gives the memory back."""
        self._close()

    def _run(self) -> None:
        status = self._library.ggml_backend_graph_compute(self._backend, self._graph)
        if status:
            raise UnavailableError(f"ggml_backend_graph_compute failed with status {status}")

    def _set(self, tensor: int, values: NDArray[np.generic]) -> None:
        """Fill a tensor with the bytes of an array."""
        held = np.ascontiguousarray(values)
        self._library.ggml_backend_tensor_set(tensor, held.ctypes.data, 0, held.nbytes)

    def _get(self, tensor: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The numbers of a tensor of f32."""
        values = np.empty(shape, np.float32)
        self._library.ggml_backend_tensor_get(tensor, values.ctypes.data, 0, values.nbytes)
        return values

    def _set_threads(self, threads: int) -> None:
        lib = self._library
        settings = lib.ggml_threadpool_params_default(threads)
        settings.poll = POLL
        pool = self._own(lib.ggml_threadpool_new(ctypes.byref(settings)), lib.ggml_threadpool_free)
        lib.ggml_backend_cpu_set_n_threads(self._backend, threads)
        lib.ggml_backend_cpu_set_threadpool(self._backend, pool)

    def _context(self, tensors: int, graph_nodes: int) -> int:
        lib = self._library
        size = tensors * lib.ggml_tensor_overhead() + (1 << 16)
        if graph_nodes:
            size += lib.ggml_graph_overhead_custom(graph_nodes + 8, False)
        return self._own(lib.ggml_init(InitParams(size, None, True)), lib.ggml_free)

    def _allocate(self, context: int, place: int) -> None:
        lib = self._library
        buffer = lib.ggml_backend_alloc_ctx_tensors_from_buft(context, place)
        self._own(buffer, lib.ggml_backend_buffer_free)

    def _place(self, tensors: list[int], place: int) -> None:
        """All of the tensors, which have one size, in the same memory."""
        lib = self._library
        size = lib.ggml_nbytes(tensors[0])
        buffer = lib.ggml_backend_buft_alloc_buffer(place, size)
        self._own(buffer, lib.ggml_backend_buffer_free)
        base = lib.ggml_backend_buffer_get_base(buffer)
        for tensor in tensors:
            lib.ggml_backend_tensor_alloc(buffer, tensor, base)

    def _own(self, handle: int | None, free: Callable[..., object]) -> int:
        if not handle:
            raise UnavailableError("ggml could not allocate what a graph needs")
        self._undo.append((free, handle))
        return handle


def _undo(steps: list[tuple[Callable[..., object], int]]) -> None:
    """Frees what was made, the last first."""
    while steps:
        free, handle = steps.pop()
        free(handle)
