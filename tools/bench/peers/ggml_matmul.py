"""Matrix products of ggml, through ctypes: `y[n, rows] = x[n, cols] @ W[rows, cols].T`.

One graph holds a product with each copy of the weights, so that launching it is paid once for all
of them, as in a model. Every product quantizes the activations again, as ggml does.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from weakref import finalize

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.libraries import InitParams, extra_buffer_types, ggml
from nybble.tools.bench.rounds import timed

PLAIN = "plain"
POLL = 50  # ggml's default eagerness of waiting threads, of 100


@dataclass(frozen=True)
class Product:
    """A product to set up.

    raw: the weights' bytes as GGUF stores them, u8 [rows, row bytes]; type_name: "q4_0", ..;
    x: f32 [n, cols]; copies: how many copies of the weights the graph goes through; repeats: how
    many times.
    """

    type_name: str
    raw: NDArray[np.uint8]
    x: NDArray[np.float32]
    threads: int = 1
    copies: int = 1
    repeats: int = 1


def type_number(name: str) -> int:
    """ggml's number of a type; raises UnavailableError."""
    try:
        return int(GGMLQuantizationType[name.upper()])
    except KeyError:
        raise UnavailableError(f"llama.cpp has no type {name}") from None


def buffer_kinds() -> list[str]:
    """Where weights can live: plain memory and whatever rearranges them on this machine."""
    return [PLAIN, *extra_buffer_types()]


def holds(buffer: str, type_name: str, rows: int, cols: int) -> bool:
    """Whether a buffer type has a product for such a weight."""
    number = GGMLQuantizationType(type_number(type_name))
    block, block_bytes = GGML_QUANT_SIZES[number]
    raw = np.zeros((rows, cols // block * block_bytes), np.uint8)
    try:
        GgmlMatmul(Product(type_name, raw, np.zeros((1, cols), np.float32)), buffer).close()
    except UnavailableError:
        return False
    return True


class GgmlMatmul:
    """A graph of products, ready to run; raises UnavailableError if the buffer type cannot do it.

    buffer: one of `buffer_kinds()`.
    """

    def __init__(self, product: Product, buffer: str = PLAIN) -> None:
        self.count = product.copies * product.repeats
        self._rows = product.raw.shape[0]
        self._n = product.x.shape[0]
        self._library = ggml()
        self._undo: list[tuple[Callable[..., object], int]] = []
        self._close = finalize(self, _undo, self._undo)
        try:
            self._build(product, buffer)
        except UnavailableError:
            self.close()
            raise

    def close(self) -> None:
        """Gives the memory back."""
        self._close()

    def seconds(self) -> float:
        """Runs the whole graph; seconds for one product of it."""
        return timed(self._run) / self.count

    def result(self) -> NDArray[np.float32]:
        """What the last product gave: f32 [n, rows]."""
        values = np.empty((self._n, self._rows), np.float32)
        self._library.ggml_backend_tensor_get(self._y, values.ctypes.data, 0, values.nbytes)
        return values

    def _run(self) -> None:
        status = self._library.ggml_backend_graph_compute(self._backend, self._graph)
        if status:
            raise UnavailableError(f"ggml_backend_graph_compute failed with status {status}")

    def _build(self, product: Product, buffer: str) -> None:
        lib = self._library
        number = type_number(product.type_name)
        rows, cols = self._rows, product.x.shape[1]
        self._backend = self._own(lib.ggml_backend_cpu_init(), lib.ggml_backend_free)
        self._set_threads(product.threads)
        plain: int = lib.ggml_backend_get_default_buffer_type(self._backend)
        place: int = extra_buffer_types().get(buffer, plain)

        held = self._context(product.copies, 0)
        weights = [lib.ggml_new_tensor_2d(held, number, cols, rows) for _ in range(product.copies)]
        self._allocate(held, place)

        work = self._context(self.count + 1, self.count)
        x = lib.ggml_new_tensor_2d(work, type_number("f32"), cols, self._n)
        self._graph = lib.ggml_new_graph_custom(work, self.count + 8, False)
        products = [lib.ggml_mul_mat(work, w, x) for w in weights * product.repeats]
        if not lib.ggml_backend_supports_op(self._backend, products[0]):
            raise UnavailableError(f"{buffer} has no product for {product.type_name} {rows}x{cols}")
        self._place([x], plain)
        self._place(products, plain)
        for node in products:
            lib.ggml_build_forward_expand(self._graph, node)
        self._y = products[-1]

        raw = np.ascontiguousarray(product.raw)
        for w in weights:
            lib.ggml_backend_tensor_set(w, raw.ctypes.data, 0, raw.nbytes)
        values = np.ascontiguousarray(product.x)
        lib.ggml_backend_tensor_set(x, values.ctypes.data, 0, values.nbytes)

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
            raise UnavailableError("ggml could not allocate what a product needs")
        self._undo.append((free, handle))
        return handle


def _undo(steps: list[tuple[Callable[..., object], int]]) -> None:
    """Frees what was made, the last first."""
    while steps:
        free, handle = steps.pop()
        free(handle)
