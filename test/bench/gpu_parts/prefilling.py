"""The cases of prefill attention: causal, dense or with lists of blocks, beside torch's kernels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from gpu_parts.build import read_cubin, read_image
from gpu_parts.machine import Machine
from gpu_parts.timing import Contender

BLOCK = 64


class PrefillCase:
    """A case with its data on the GPU: all tokens are new."""

    def __init__(self, folder: Path, case: dict[str, Any], machine: Machine) -> None:
        self.folder, self.case, self.machine = folder, case, machine
        spec = self.spec = case["spec"]
        self.random = machine.random(5)
        heads = spec["kv_heads"] * spec["group"]
        self.tokens = spec["tokens"]
        query = (spec["sequences"], self.tokens, heads, spec["head_dim"])
        cache = (spec["sequences"], spec["kv_heads"], spec["context"], spec["head_dim"])
        self.q, self.k, self.v = (self._normal(shape) for shape in (query, cache, cache))
        self.lists = self._lists() if spec.get("block_lists") else {}
        self.exact = self._exact()
        part = spec.get("density", 1.0)
        self.flops = round(2 * heads * self.tokens**2 * spec["head_dim"] * part)
        self.size = sum(one.nbytes for one in (self.q, self.q, self.k, self.v))

    def _normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        made = torch.randn(shape, generator=self.random, device=self.machine.device)
        return made.half()

    def _lists(self) -> dict[str, torch.Tensor]:
        """For each 64 tokens of a head its own block and a part of those before it."""
        spec, device = self.spec, self.machine.device
        heads = spec["sequences"] * spec["kv_heads"] * spec["group"]
        tiles, most = -(-self.tokens // BLOCK), spec["context"] // BLOCK
        before = torch.arange(tiles, device=device)
        counts = 1 + (before * spec["density"]).round().int()
        noise = torch.rand((heads, tiles, most), generator=self.random, device=device)
        places = torch.arange(most, device=device)
        noise.masked_fill_(places[None, None] > before[None, :, None], 2.0)
        noise.masked_fill_(places[None, None] == before[None, :, None], -1.0)
        table = noise.argsort(-1).int().contiguous()
        repeated = counts.int().expand(heads, tiles).contiguous()
        return {"block_list": table, "block_counts": repeated}

    def _seen(self, head: int) -> torch.Tensor:
        """Which keys each token of a head of the first sequence sees."""
        device, tokens = self.machine.device, self.tokens
        places = torch.arange(tokens, device=device)
        seen = places[None] <= places[:, None]
        if self.lists:
            table, counts = self.lists["block_list"][head], self.lists["block_counts"][head]
            rank = table.argsort(-1)
            named = rank < counts[:, None]
            wide = named.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
            seen &= wide[:tokens, :tokens]
        return seen

    def _exact(self) -> dict[int, torch.Tensor]:
        """The result of some heads of the first sequence, f64."""
        heads = self.spec["kv_heads"] * self.spec["group"]
        found: dict[int, torch.Tensor] = {}
        for head in {0, heads // 2, heads - 1}:
            other = head // self.spec["group"]
            k, v = (one[0, other, : self.tokens].double() for one in (self.k, self.v))
            logits = self.q[0, :, head].double() @ k.T * self.spec["scale"]
            logits.masked_fill_(~self._seen(head), float("-inf"))
            found[head] = torch.softmax(logits, -1) @ v
        return found

    def nmse(self, y: torch.Tensor) -> float:
        """Squared error over squared size, of the heads that `exact` has."""
        shown = y.view(self.q.shape)
        pairs = [(shown[0, :, head].double(), one) for head, one in self.exact.items()]
        error = sum(float((got - one).square().sum()) for got, one in pairs)
        return error / sum(float(one.square().sum()) for _, one in pairs)

    def ours(self) -> list[tuple[str, Callable[[], Contender]]]:
        """Our kernels by variant, to be made one by one."""
        return [(v, lambda k=key, v=v: self._our(k, v)) for v, key in self.case["kernels"].items()]

    def _our(self, key: str, variant: str) -> Contender:
        image = read_image(self.folder, key)
        launch, facts = self.machine.load(image, read_cubin(self.folder, key))
        out = torch.full_like(self.q, float("nan"))
        kind = {"dtype": torch.int32, "device": self.machine.device}
        lengths = torch.full((self.q.shape[0],), self.tokens, **kind)
        fixed = {"q": self.q, "k": self.k, "v": self.v, "lengths": lengths, "out": out} | self.lists

        def run(copy: int) -> None:
            launch(fixed)

        name = f"nybble {variant}".strip()
        return Contender(name, run, lambda: out, 1, self.size, self.flops, facts)

    def peers(self) -> list[tuple[str, Callable[[], Contender]]]:
        """Torch's kernels, of the dense problem."""
        if self.lists:
            return []
        kinds = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
        return [(f"torch {n}", lambda n=n, k=kind: self._torch(n, k)) for n, kind in kinds.items()]

    def _torch(self, name: str, kind: SDPBackend) -> Contender:
        group = self.spec["group"]
        q = self.q.transpose(1, 2).contiguous()
        k, v = (one.repeat_interleave(group, 1) for one in (self.k, self.v))
        kept = [q]

        def run(copy: int) -> None:
            with sdpa_kernel(kind):
                kept[0] = sdpa(q, k, v, is_causal=True, scale=self.spec["scale"])

        def result() -> torch.Tensor:
            return kept[0].transpose(1, 2).contiguous()

        return Contender(f"torch {name}", run, result, 1, self.size, self.flops)
