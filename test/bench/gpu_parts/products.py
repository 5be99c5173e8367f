"""The cases of products: weights, activations, the exact result, our kernels and the peers."""

import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpu_parts import peers
from gpu_parts.build import read_cubin, read_image
from gpu_parts.machine import Machine
from gpu_parts.timing import Contender, copies_for
from nybble.backends.gpu.packing.pack import pack_stream
from nybble.dialects.lowbit import formats

TOLERANCE = 1e-5
"""NMSE that a product of f16 activations and sums in f32, rounded to f16, stays well below."""


@dataclass(frozen=True)
class Packing:
    """What a kernel's weights are: layout and kind, as the kernel was built for."""

    layout: Any
    kind: Any


def packing(folder: Path, key: str) -> Packing:
    """That of a kernel in the folder."""
    return Packing(**pickle.loads((folder / "layouts" / f"{key}.pkl").read_bytes()))


def random_weight(format: str, rows: int, cols: int, kind: Any) -> dict[str, Any]:
    """Codes u8 [rows, cols]; scales, and zeros if there are any, f32 [rows, groups]."""
    random = np.random.default_rng(7)
    low, high = _codes(format, kind.bits)
    groups = -(-cols // kind.group)
    scale = random.uniform(0.5, 1.5, (rows, groups)) / 2 ** (kind.bits - 1)
    made = {"codes": random.integers(low, high, (rows, cols), np.uint8)}
    made["scale"] = _exact(scale, kind.scale) * np.float32(kind.unit)
    if kind.zero == "points":
        made["zero"] = random.integers(low, high, (rows, groups)).astype(np.float32)
    elif kind.zero:
        made["zero"] = _exact(random.uniform(-1, 0, (rows, groups)), kind.scale)
    return made


def packed(folder: Path, key: str, spec: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """The weight as a kernel reads it; kept on disk when first made."""
    found = packing(folder, key)
    shape = spec["format"], spec["rows"], spec["cols"]
    name = hashlib.sha256(repr((shape, found.layout)).encode()).hexdigest()[:16]
    cached = folder / "packed" / f"{name}.npy"
    if cached.is_file():
        return np.load(cached)
    made = random_weight(*shape, found.kind)
    scale = made["scale"] / np.float32(found.kind.unit)
    stream = pack_stream(found.layout, made["codes"], scale, made.get("zero"))
    cached.parent.mkdir(exist_ok=True)
    part = cached.with_suffix(f".{os.getpid()}.npy")
    np.save(part, stream)
    part.replace(cached)
    return stream


@lru_cache(maxsize=2)
def dense_weight(format: str, rows: int, cols: int, kind: Any, device: str) -> torch.Tensor:
    """f32 [rows, cols] on the device, of `random_weight`; the last two are kept."""
    return dequantized(format, random_weight(format, rows, cols, kind), kind, device)


def _codes(format: str, bits: int) -> tuple[int, int]:
    spec = formats.get(format).spec
    if spec.startswith("ternary"):
        return 0, 3
    return (1 if ".narrow" in spec.split(":")[0] else 0), 2**bits


def _exact(values: Any, dtype: str) -> Any:
    """f32 that the type holds exactly."""
    wide = values.astype(np.float32)
    if dtype == "bf16":
        return (wide.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return wide.astype(np.float16).astype(np.float32) if dtype == "f16" else wide


def dequantized(format: str, made: dict[str, Any], kind: Any, device: str) -> torch.Tensor:
    """f32 [rows, cols] on the device: scale * T(code) + minimum, or scale * (code - point)."""
    levels = formats.get(format).element.plain_table
    if levels is None:
        levels = np.arange(2**kind.bits) * kind.meaning.step + kind.meaning.first
    codes = torch.from_numpy(made["codes"]).to(device)
    values = torch.from_numpy(levels.astype(np.float32)).to(device)[codes.int()]
    del codes
    rows, cols = values.shape
    group = min(kind.group, cols)
    parts = values.view(rows, -1, group)
    scale = torch.from_numpy(made["scale"]).to(device)[..., None]
    if kind.zero == "points":
        parts -= torch.from_numpy(made["zero"]).to(device)[..., None]
    parts *= scale
    if kind.zero == "minimum":
        parts += torch.from_numpy(made["zero"]).to(device)[..., None]
    return values


class ProductCase:
    """A case with its data on the GPU."""

    def __init__(self, folder: Path, case: dict[str, Any], machine: Machine) -> None:
        spec = case["spec"]
        self.folder, self.case, self.machine, self.l2 = folder, case, machine, machine.l2
        self.rows, self.cols, self.tokens = spec["rows"], spec["cols"], spec["tokens"]
        self.spec = spec
        kind = packing(folder, next(iter(case["kernels"].values()))).kind
        self.dense = dense_weight(spec["format"], self.rows, self.cols, kind, machine.device)
        self.dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[spec["activations"]]
        random = machine.random(self.tokens)
        shape = (self.tokens, self.cols)
        self.x = torch.randn(shape, generator=random, device=machine.device).to(self.dtype)
        self.exact = self.x.double() @ self.dense.double().T
        self.flops = 2 * self.tokens * self.rows * self.cols
        self.small = self.x.nbytes + self.tokens * self.rows * 2
        """Bytes of activations and results."""

    def nmse(self, y: torch.Tensor) -> float:
        """Squared error over squared size of the exact result."""
        error = (y.double() - self.exact).square().sum() / self.exact.square().sum()
        return float(error)

    def ours(self) -> list[tuple[str, Callable[[], Contender]]]:
        """Our kernels by variant, to be made one by one."""
        return [(v, lambda k=key, v=v: self._our(k, v)) for v, key in self.case["kernels"].items()]

    def _our(self, key: str, variant: str) -> Contender:
        image = read_image(self.folder, key)
        launch, facts = self.machine.load(image, read_cubin(self.folder, key))
        stream, device = torch.from_numpy(packed(self.folder, key, self.spec)), self.machine.device
        size = stream.numel()
        copies = [stream.to(device, copy=True) for _ in range(copies_for(size, self.l2))]
        shape = (self.tokens, self.rows)
        y = torch.full(shape, float("nan"), dtype=self.dtype, device=device)
        fixed = {"x": self.x, "y": y} | self.machine.scratch(image, ("x", "y", "w"))

        def run(copy: int) -> None:
            launch({**fixed, "w": copies[copy]})

        name = f"nybble {variant}".strip()
        return Contender(name, run, lambda: y, len(copies), size + self.small, self.flops, facts)

    def peers(self) -> list[tuple[str, Callable[[], Contender]]]:
        """Whatever else multiplies such a weight, to be made one by one."""
        return [(name, lambda make=make: make(self)) for name, make in peers.products(self).items()]
