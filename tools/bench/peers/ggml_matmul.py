"""Matrix products of ggml, through ctypes: `y[n, rows] = x[n, cols] @ W[rows, cols].T`.

One graph holds a product with each copy of the weights, so that launching it is paid once for all
of them, as in a model. Every product quantizes the activations again, as ggml does.
"""

from dataclasses import dataclass

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.ggml_graph import GgmlGraph, type_number
from nybble.tools.bench.peers.libraries import extra_buffer_types
from nybble.tools.bench.rounds import timed

PLAIN = "plain"


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


class GgmlMatmul(GgmlGraph):
    """A graph of products, ready to run; raises UnavailableError if the buffer type cannot do it.

    buffer: one of `buffer_kinds()`.
    """

    def __init__(self, product: Product, buffer: str = PLAIN) -> None:
        super().__init__(product.threads)
        self.count = product.copies * product.repeats
        self._rows = product.raw.shape[0]
        self._n = product.x.shape[0]
        try:
            self._build(product, buffer)
        except UnavailableError:
            self.close()
            raise

    def seconds(self) -> float:
        """Runs the whole graph; seconds for one product of it."""
        return timed(self._run) / self.count

    def result(self) -> NDArray[np.float32]:
        """What the last product gave: f32 [n, rows]."""
        return self._get(self._y, (self._n, self._rows))

    def _build(self, product: Product, buffer: str) -> None:
        lib = self._library
        number = type_number(product.type_name)
        rows, cols = self._rows, product.x.shape[1]
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

        for w in weights:
            self._set(w, product.raw)
        self._set(x, product.x)
