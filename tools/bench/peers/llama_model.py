"""A GGUF model in llama.cpp: seconds of prompt processing and of decoding, and its logits."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.ggml_matmul import PLAIN
from nybble.tools.bench.peers.libraries import BufferOverride, extra_buffer_types, llama
from nybble.tools.bench.rounds import timed

DEFAULT = "default"
_LINEAR = rb"blk\..*(attn_(q|k|v|qkv|output)|ffn_(gate|up|down))\.weight"


@dataclass(frozen=True)
class LlamaSetting:
    """What llama.cpp leaves to its user and may make it faster.

    buffers: "default" (its own choice), "plain" (no rearranged weights), or a buffer type's name
    for the layers' matrices, such as "CPU_REPACK".
    flash: flash attention. batch: tokens that are computed together in a prompt (n_ubatch).
    """

    buffers: str = DEFAULT
    flash: bool = True
    batch: int = 512

    def __str__(self) -> str:
        return f"{self.buffers}, flash {'on' if self.flash else 'off'}, ubatch {self.batch}"


class LlamaModel:
    """The weights in memory, under one choice of buffers; contexts share them."""

    def __init__(self, path: Path, buffers: str = DEFAULT) -> None:
        api = llama()
        params = api.llama_model_default_params()
        params.use_extra_bufts = buffers == DEFAULT
        overrides = None
        if buffers not in (DEFAULT, PLAIN):
            place = extra_buffer_types()[buffers]
            overrides = (BufferOverride * 2)(
                BufferOverride(_LINEAR, place), BufferOverride(None, None)
            )
            params.tensor_buft_overrides = ctypes.addressof(overrides)
        self.handle = api.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise UnavailableError(f"llama.cpp cannot load {path}")
        self._vocab = api.llama_model_get_vocab(self.handle)
        self.vocab_size = int(api.llama_vocab_n_tokens(self._vocab))
        self.close = finalize(self, api.llama_model_free, self.handle)

    def tokenize(self, text: str) -> list[int]:
        """The ids of `text`, nothing added and markers of special tokens taken as text."""
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 8))()
        count = llama().llama_tokenize(self._vocab, data, len(data), room, len(room), False, False)
        return list(room[: max(count, 0)])


class LlamaContext:
    """A text on a model; positions count from 0."""

    def __init__(self, model: LlamaModel, tokens: int, threads: int, setting: LlamaSetting) -> None:
        """tokens: the most that a text has."""
        api = llama()
        params: Any = api.llama_context_default_params()
        params.n_ctx = tokens
        params.n_batch = tokens
        params.n_ubatch = min(setting.batch, tokens)
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = int(setting.flash)
        self._api = api
        self._model = model
        self._tokens = tokens
        self._handle = api.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise UnavailableError(f"llama.cpp makes no context with {setting}, {threads} threads")
        self._memory = api.llama_get_memory(self._handle)
        self.close = finalize(self, api.llama_free, self._handle)

    def prefill(self, ids: Sequence[int]) -> float:
        """Seconds to feed `ids` to an empty context in one batch, logits of the last included."""
        self._api.llama_memory_clear(self._memory, True)
        room = (ctypes.c_int32 * len(ids))(*ids)
        return timed(lambda: self._feed(room, 0, len(ids)))

    def decode(self, ids: Sequence[int], start: int) -> float:
        """Forgets what follows position `start`; seconds to feed `ids` one by one with logits."""
        if not self._api.llama_memory_seq_rm(self._memory, 0, start, -1):
            raise UnavailableError(f"llama.cpp cannot go back to position {start} of this model")
        room = (ctypes.c_int32 * len(ids))(*ids)
        return timed(lambda: [self._feed(room, index, 1) for index in range(len(ids))])

    def second_half(self, window: list[int]) -> NDArray[np.float32]:
        """Logits of the window's second half, its last token left out: f32 [n / 2 - 1, vocab]."""
        api, size = self._api, len(window)
        api.llama_memory_clear(self._memory, True)
        batch = api.llama_batch_init(size, 0, 1)
        batch.n_tokens = size
        for index, token in enumerate(window):
            batch.token[index], batch.pos[index] = token, index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = index >= size // 2
        failed = api.llama_decode(self._handle, batch)
        api.llama_batch_free(batch)
        self._check(failed)
        rows = [self._logits(index) for index in range(size // 2, size - 1)]
        return np.stack(rows)

    def _feed(self, room: Any, start: int, count: int) -> None:
        place = ctypes.cast(ctypes.addressof(room) + 4 * start, ctypes.POINTER(ctypes.c_int32))
        failed = self._api.llama_decode(self._handle, self._api.llama_batch_get_one(place, count))
        self._check(failed)
        self._api.llama_synchronize(self._handle)

    def _check(self, failed: int) -> None:
        if failed:
            raise UnavailableError(
                f"llama_decode failed with {failed} (room for {self._tokens} tokens)"
            )

    def _logits(self, index: int) -> NDArray[np.float32]:
        pointer = self._api.llama_get_logits_ith(self._handle, index)
        return np.ctypeslib.as_array(pointer, (self._model.vocab_size,)).copy()
