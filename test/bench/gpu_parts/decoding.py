"""The cases of decode attention: caches, the exact result, our kernels and torch's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from gpu_parts.build import read_cubin, read_image
from gpu_parts.machine import Machine
from gpu_parts.timing import Contender, copies_for

TOLERANCES = {"f16": 1e-5, "bf16": 3e-4, "kv8": 1e-5, "kv4": 1e-5, "kv2": 1e-5}
_SCALED = ("k_scales", "k_minima", "v_scales", "v_minima")


class DecodeCase:
    """A case with its data on the GPU."""

    def __init__(self, folder: Path, case: dict[str, Any], machine: Machine) -> None:
        self.folder, self.case, self.machine, self.l2 = folder, case, machine, machine.l2
        spec = self.spec = case["spec"]
        self.bits = {"f16": 16, "bf16": 16, "kv8": 8, "kv4": 4, "kv2": 2}[spec["cache"]]
        self.dtype = torch.bfloat16 if spec["cache"] == "bf16" else torch.float16
        heads = spec["sequences"], spec["kv_heads"]
        self.shape = (*heads, spec["context"], spec["head_dim"])
        self.random = machine.random(3)
        query = (spec["sequences"], spec["kv_heads"] * spec["group"], spec["head_dim"])
        self.q = self._normal(query).to(self.dtype)
        self.length = spec["context"] - 5
        self.buffers, self.keys, self.values = self._cache()
        self.seen = self._lists()
        self.exact = self._exact()
        part = self.spec.get("density", 1.0)
        self.flops = round(4 * query[0] * query[1] * query[2] * self.length * part)

    def _normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=self.random, device=self.machine.device)

    def _cache(self) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """The kernel's buffers, and the keys and values that they mean, f32."""
        if self.bits == 16:
            k, v = (self._normal(self.shape).to(self.dtype) for _ in "kv")
            return {"k": k, "v": v}, k.float(), v.float()
        group = self.spec.get("key_group", 64)
        sequences, heads, context, dim = self.shape
        codes = [self._codes() for _ in "kv"]
        top = 2**self.bits
        by_group, by_token = (sequences, heads, context // group, dim), (sequences, heads, context)
        ks, vs = (self._uniform(one) * (3.0 / top) for one in (by_group, by_token))
        km, vm = (-1.5 + 0.2 * self._uniform(one) for one in (by_group, by_token))
        scaled = dict(zip(_SCALED, (one.half() for one in (ks, km, vs, vm)), strict=True))
        wide = {name: one.float() for name, one in scaled.items()}
        every = [wide[name].repeat_interleave(group, 2) for name in _SCALED[:2]]
        keys = codes[0].float() * every[0] + every[1]
        values = codes[1].float() * wide["v_scales"][..., None] + wide["v_minima"][..., None]
        packed = {name: self._packed(one) for name, one in zip("kv", codes, strict=True)}
        return packed | scaled, keys, values

    def _uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        return 0.5 + torch.rand(shape, generator=self.random, device=self.machine.device)

    def _codes(self) -> torch.Tensor:
        top = 2**self.bits
        kind = {"dtype": torch.uint8, "device": self.machine.device, "generator": self.random}
        return torch.randint(0, top, self.shape, **kind)

    def _packed(self, codes: torch.Tensor) -> torch.Tensor:
        each = 8 // self.bits
        parts = codes.view(*self.shape[:-1], -1, each)
        made = torch.zeros_like(parts[..., 0])
        for i in range(each):
            made |= parts[..., i] << (i * self.bits)
        return made.contiguous()

    def _lists(self) -> torch.Tensor:
        """Which keys each head sees, bool [sequences, kv_heads, context]; fills lists of blocks."""
        sequences, heads, context, _ = self.shape
        device = self.machine.device
        within = torch.arange(context, device=device) < self.length
        seen = within.expand(sequences, heads, context).clone()
        if not (block := self.spec.get("block")):
            return seen
        most = context // block
        count = max(1, round(most * self.spec["density"]))
        noise = torch.rand((sequences * heads, most), generator=self.random, device=device)
        listed = noise.argsort(1)[:, :count].sort(1).values.int()
        table = torch.zeros((sequences * heads, most), dtype=torch.int32, device=device)
        table[:, :count] = listed
        counts = torch.full((sequences * heads,), count, dtype=torch.int32, device=device)
        self.buffers |= {"block_list": table, "block_counts": counts}
        named = torch.zeros((sequences * heads, most), dtype=torch.bool, device=device)
        named.scatter_(1, listed.long(), True)
        return seen & named.repeat_interleave(block, 1).view_as(seen)

    def _exact(self) -> torch.Tensor:
        q = self.q.double().view(*self.shape[:2], -1, self.shape[3])
        keys = self.keys[:, :, : self.length].double()
        logits = q @ keys.transpose(2, 3) * self.spec["scale"]
        logits.masked_fill_(~self.seen[:, :, None, : self.length], float("-inf"))
        del keys
        found = torch.softmax(logits, -1) @ self.values[:, :, : self.length].double()
        return found.reshape(self.q.shape)

    def nmse(self, y: torch.Tensor) -> float:
        """Squared error over squared size of the exact result."""
        error = (y.reshape(self.exact.shape).double() - self.exact).square().sum()
        return float(error / self.exact.square().sum())

    def ours(self) -> list[tuple[str, Callable[[], Contender]]]:
        """Our kernels by variant, to be made one by one."""
        return [(v, lambda k=key, v=v: self._our(k, v)) for v, key in self.case["kernels"].items()]

    def _our(self, key: str, variant: str) -> Contender:
        image = read_image(self.folder, key)
        launch, facts = self.machine.load(image, read_cubin(self.folder, key))
        whole = sum(one.nbytes for one in self.buffers.values())
        size = round(whole * self.spec.get("density", 1.0))
        count = copies_for(size, self.l2)
        copies = [{n: b.clone() for n, b in self.buffers.items()} for _ in range(count)]
        out = torch.full_like(self.q, float("nan"))
        kind = {"dtype": torch.int32, "device": self.machine.device}
        lengths = torch.full((self.shape[0],), self.length, **kind)
        fixed = {"q": self.q, "out": out, "lengths": lengths}
        fixed |= self.machine.scratch(image, (*fixed, *self.buffers))

        def run(copy: int) -> None:
            launch({**fixed, **copies[copy]})

        return Contender(f"nybble {variant}", run, lambda: out, count, size, self.flops, facts)

    def peers(self) -> list[tuple[str, Callable[[], Contender]]]:
        """Torch's kernels on the f16 cache, with the query heads of a group as rows."""
        if self.bits < 16 or "block" in self.spec:
            return []
        kinds = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
        kinds |= {"efficient": SDPBackend.EFFICIENT_ATTENTION}
        return [(f"torch {n}", lambda n=n, k=kind: self._torch(n, k)) for n, kind in kinds.items()]

    def _torch(self, name: str, kind: SDPBackend) -> Contender:
        q = self.q.view(*self.shape[:2], -1, self.shape[3])
        size = 2 * self.buffers["k"].nbytes
        count = copies_for(size, self.l2)
        copies = [
            [self.buffers[n].clone()[:, :, : self.length] for n in "kv"] for _ in range(count)
        ]
        kept: list[torch.Tensor] = [q]

        def run(copy: int) -> None:
            with sdpa_kernel(kind):
                kept[0] = sdpa(q, *copies[copy], scale=self.spec["scale"])

        return Contender(f"torch {name}", run, lambda: kept[0], count, size, self.flops)
