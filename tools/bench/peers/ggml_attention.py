"""ggml's flash attention, through ctypes, as llama.cpp calls it."""

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from nybble.dialects.sparse_attn.kv import KvFormat
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.ggml_graph import GgmlGraph, type_number
from nybble.tools.bench.rounds import timed

F32 = NDArray[np.float32]
NODES = 8


def type_of_cache(kv: KvFormat) -> str:
    """The type of llama.cpp's cache that is nearest: it has none of 2 bits that a head fits."""
    if kv.is_coded:
        return "q8_0" if kv.bits == 8 else "q4_0"
    return "f32" if kv.exact == "f32" else "f16"


class GgmlAttention(GgmlGraph):
    """Ready to run; raises UnavailableError if ggml cannot do it.

    q: f32 [rows, heads * d], the last rows of k, v f32 [kv_heads, context, d]. seen: bool [rows,
    context], which keys a row sees; None for all of them. type_name: of the cache.
    """

    def __init__(
        self, q: F32, caches: tuple[F32, F32], seen: NDArray[np.bool_] | None, type_name: str,
        threads: int,
    ) -> None:  # fmt: skip
        super().__init__(threads)
        self._shape = q.shape
        try:
            self._build(q, caches, seen, type_name)
        except UnavailableError:
            self.close()
            raise

    def seconds(self) -> float:
        """Run once."""
        return timed(self._run)

    def result(self) -> F32:
        """f32 [rows, heads * d]."""
        return self._get(self._out, self._shape)

    def _build(
        self, q: F32, caches: tuple[F32, F32], seen: NDArray[np.bool_] | None, type_name: str
    ) -> None:
        lib, number, plain = self._library, type_number(type_name), type_number("f32")
        kv_heads, context, d = caches[0].shape
        rows = len(q)
        heads = q.shape[1] // d
        held = self._context(4, 0)
        query = lib.ggml_new_tensor_3d(held, plain, d, rows, heads)
        keys, values = (
            lib.ggml_new_tensor_3d(held, number, d, context, kv_heads) for _ in range(2)
        )
        half = type_number("f16")
        mask = None if seen is None else lib.ggml_new_tensor_2d(held, half, context, rows)
        place = lib.ggml_backend_get_default_buffer_type(self._backend)
        self._allocate(held, place)
        work = self._context(NODES, NODES)
        self._graph = lib.ggml_new_graph_custom(work, NODES, False)
        scale = d**-0.5
        self._out = lib.ggml_flash_attn_ext(work, query, keys, values, mask, scale, 0.0, 0.0)
        if not lib.ggml_backend_supports_op(self._backend, self._out):
            raise UnavailableError(f"no flash attention over {type_name} and heads of {d}")
        self._place([self._out], place)
        lib.ggml_build_forward_expand(self._graph, self._out)
        self._set(query, q.reshape(rows, heads, d).transpose(1, 0, 2))
        for tensor, cache in zip((keys, values), caches, strict=True):
            self._set(tensor, stored(cache, type_name))
        if mask is not None and seen is not None:
            self._set(mask, np.where(seen, np.float16(0), np.float16(-np.inf)))


def stored(values: F32, type_name: str) -> NDArray[np.generic]:
    """An array as ggml keeps it."""
    return quants.quantize(values, GGMLQuantizationType[type_name.upper()])
