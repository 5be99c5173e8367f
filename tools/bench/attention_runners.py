"""Who takes part in `nybble bench attention`: our kernel as a compilation makes it, and peers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.backends.llvm.workers import close_idle
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.sparse_attn.kv import SIDES, parse
from nybble.dialects.sparse_attn.masks import Causal, Mask, dense
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.own_thread import OwnThread
from nybble.tools.bench.peers.ggml_attention import GgmlAttention, type_of_cache
from nybble.tools.bench.peers.optional import package
from nybble.tools.bench.rounds import timed
from nybble.tools.cache_text import cache_text
from nybble.tools.mlir_file import FIRST, advance, find_function
from nybble.tools.random_values import key_caches
from nybble.tools.run_file import SCHEDULED, FileRun, compile_function

F32 = npt.NDArray[np.float32]
TEXT = """
func.func @f(%q: tensor<{rows}x{width}xf32>, %k: {keys}, %v: {values}, %p: index)
    -> tensor<{rows}x{width}xf32> {{
  %r = sparse_attn.attention %q, %k, %v at %p mask <"{mask}"> scale {scale:.9e}
    softmax "{softmax}" : tensor<{rows}x{width}xf32>, {keys}, {values}
    -> tensor<{rows}x{width}xf32>
  func.return %r : tensor<{rows}x{width}xf32>
}}
"""


@dataclass(frozen=True, eq=False)
class Inputs:
    """q f32 [rows, heads * d], the last rows of k, v f32 [kv_heads, context, d]."""

    q: F32
    k: F32
    v: F32

    @staticmethod
    def random(rows: int, context: int, sizes: tuple[int, int, int]) -> "Inputs":
        """Normally distributed numbers. sizes: heads, heads of keys, d."""
        heads, kv_heads, d = sizes
        random = np.random.default_rng(0)
        q = random.standard_normal((rows, heads * d), np.float32)
        k, v = random.standard_normal((2, kv_heads, context, d), np.float32)
        return Inputs(q, k, v)

    @property
    def position(self) -> int:
        """Of the first row."""
        return self.k.shape[1] - len(self.q)

    def seen(self, mask: Mask, heads: int) -> npt.NDArray[np.bool_]:
        """Which keys a row sees: bool [heads, rows, context]."""
        context = self.k.shape[1]
        return dense(mask, np.arange(self.position, context), np.arange(context), heads)

    def seen_by_all(self, mask: Mask) -> npt.NDArray[np.bool_]:
        """The same of all heads: bool [rows, context]; UnavailableError where heads differ."""
        first, *others = self.seen(mask, len(self.k) if mask.inner else 1)
        if any((first != other).any() for other in others):
            raise UnavailableError(f"takes one mask for all heads, unlike {mask}")
        return first


class OurAttention:
    """Compiled and ready to run."""

    def __init__(self, inputs: Inputs, kv: str, mask: str, softmax: str, threads: int) -> None:
        rows, width = inputs.q.shape
        keys, values = (cache_text(side, inputs.k.shape, kv, rows) for side in SIDES)
        text = TEXT.format(
            rows=rows, width=width, keys=keys, values=values, mask=mask, softmax=softmax,
            scale=inputs.k.shape[2] ** -0.5,
        )  # fmt: skip
        module = parse_module(make_context(), text, "<attention>")
        run = FileRun("f", rows, inputs.position, 0, threads, None, "f32")
        plain = key_caches(find_function(module, "f"))
        advance(module, FIRST, SCHEDULED, run.options())
        caches = [parse(kv).rounded(one) for one in (inputs.k, inputs.v)]
        given = [inputs.q, *caches, inputs.position]
        self._compiled = compile_function(module, "f", given, plain, run)
        close_idle()
        self._compiled.run()

    def seconds(self) -> float:
        """Run once; the time of the kernel alone."""
        executor, one = self._compiled.executor, self._compiled
        return timed(lambda: executor.run(("main",), one.rows, one.position))

    def result(self) -> npt.NDArray[np.float64]:
        """f64 [rows, heads * d]."""
        return self._compiled.results()[0]

    def close(self) -> None:
        """Ends the threads."""
        self._compiled.executor.close()


class LlamaAttention:
    """ggml's flash attention, on the type of llama.cpp's caches that is nearest to ours."""

    def __init__(self, inputs: Inputs, kv: str, mask: Mask, threads: int) -> None:
        self._thread = OwnThread("llama.cpp")
        seen = None if len(inputs.q) == 1 and isinstance(mask, Causal) else inputs.seen_by_all(mask)
        self._one = self._thread.run(
            GgmlAttention, inputs.q, (inputs.k, inputs.v), seen, type_of_cache(parse(kv)), threads
        )
        self.seconds()

    def seconds(self) -> float:
        """Run once."""
        return self._thread.run(self._one.seconds)

    def result(self) -> F32:
        """f32 [rows, heads * d]."""
        return self._thread.run(self._one.result)

    def close(self) -> None:
        """Gives the memory back."""
        self._thread.run(self._one.close)


class TorchAttention:
    """torch's scaled_dot_product_attention, on bf16, its fast half type, but where ours is f32."""

    def __init__(self, inputs: Inputs, kv: str, mask: Mask, threads: int) -> None:
        self._torch: Any = package("torch", "torch", "pip install 'nybble[torch]'")
        self._thread = OwnThread("torch")
        self._shape = inputs.q.shape
        self._thread.run(self._set_up, inputs, kv, mask, threads)
        self.seconds()

    def _set_up(self, inputs: Inputs, kv: str, mask: Mask, threads: int) -> None:
        torch = self._torch
        torch.set_num_threads(threads)
        kind = torch.float32 if kv == "f32" else torch.bfloat16
        heads, _, d = inputs.k.shape
        q = torch.from_numpy(inputs.q).reshape(len(inputs.q), -1, d).transpose(0, 1)[None]
        self._q = q.to(kind).contiguous()
        self._k, self._v = (torch.from_numpy(one)[None].to(kind) for one in (inputs.k, inputs.v))
        causal = isinstance(mask, Causal)
        self._options: dict[str, Any] = {"enable_gqa": True}
        if causal:
            self._options["is_causal"] = len(inputs.q) > 1
        else:
            group = self._q.shape[1] // heads
            seen = inputs.seen(mask, heads).repeat(group, axis=0)
            self._options["attn_mask"] = torch.from_numpy(seen)[None]

    def _attend(self) -> Any:
        with self._torch.no_grad():
            attend = self._torch.nn.functional.scaled_dot_product_attention
            return attend(self._q, self._k, self._v, **self._options)

    def seconds(self) -> float:
        """Run once."""
        return self._thread.run(lambda: timed(self._attend))

    def result(self) -> F32:
        """f32 [rows, heads * d]."""
        found = self._thread.run(self._attend)[0].transpose(0, 1).float()
        return np.asarray(found.numpy(), np.float32).reshape(self._shape)

    def close(self) -> None:
        """Nothing to give back."""


PEERS: dict[str, type[TorchAttention | LlamaAttention]] = {
    "torch": TorchAttention,
    "llama.cpp": LlamaAttention,
}
