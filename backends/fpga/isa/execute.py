"""What a stream computes: memory, buffers and units of all regions as numpy arrays.

Sums of products are exact integers, scaled by f32 scales of codes and weights; everything else is
f32, rounded to f16 where it is written to the buffer of values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.backends.fpga.isa.encoding import Instruction
from nybble.backends.fpga.isa.image import CODES, lines, unpack
from nybble.backends.fpga.isa.instructions import BLOCK, LINE
from nybble.backends.fpga.isa.matrix import up
from nybble.backends.fpga.isa.plan import PARAM_BYTES, VALUE_BYTES, Plan
from nybble.backends.fpga.isa.timing import unrolled

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass
class Region:
    """One region. values f16 [blocks, 16]; codes i8 [blocks, 16], each with the scale of its row;
    sums: of the product in progress."""

    memory: U8
    weights: U8
    params: U8
    values: npt.NDArray[np.float16]
    codes: npt.NDArray[np.int8]
    scales: F32
    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))


class Simulator:
    """All regions. memories: as `image.build` makes them; they are written to."""

    def __init__(self, plan: Plan, memories: Sequence[U8]):
        machine = plan.machine
        self.plan = plan
        self.position = 0
        self.last = 0
        self.regions = [
            Region(
                memory,
                np.zeros(machine.weights, np.uint8),
                np.zeros(machine.params, np.uint8),
                np.zeros((machine.values // (BLOCK * VALUE_BYTES), BLOCK), np.float16),
                np.zeros((machine.activations // BLOCK, BLOCK), np.int8),
                np.zeros(machine.activations // BLOCK, np.float32),
            )
            for memory in memories
        ]

    def put_hidden(self, hidden: F32, tokens: int) -> None:
        """Write f32 [n, hidden] where the first layer reads it, in tiles of so many tokens."""
        plan = self.plan
        width = plan.slice * plan.machine.regions
        whole = np.zeros((-(-len(hidden) // tokens) * tokens, width), np.float16)
        whole[: len(hidden), : hidden.shape[1]] = hidden
        for index, region in enumerate(self.regions):
            mine = whole[:, index * plan.slice : (index + 1) * plan.slice]
            tiles = mine.reshape(-1, tokens, plan.slice // BLOCK, BLOCK).transpose(0, 2, 1, 3)
            raw = np.frombuffer(tiles.tobytes(), np.uint8)
            region.memory[plan.stream_at : plan.stream_at + len(raw)] = raw

    def logits(self, count: int) -> F32:
        """f32 [count]: what the last matrix gave."""
        parts = [
            one.memory[self.plan.logits_at : self.plan.head_at].view(np.float16)
            for one in self.regions
        ]
        each = up(-(-count // len(parts)), BLOCK)
        return np.concatenate([one[:each] for one in parts])[:count].astype(np.float32)

    def run(self, program: Sequence[Instruction], order: Iterable[int] | None = None) -> None:
        """Carry out a stream. order: of the unrolled instructions, if not the stream's own."""
        steps = [*unrolled(program)]
        for index in range(len(steps)) if order is None else order:
            layer, one = steps[index]
            self.step(one, layer)

    def step(self, one: Instruction, layer: int) -> None:
        """Carry out an instruction in all regions."""
        if one.unit == "sys":
            return
        if one.unit == "st" and one.named("mode") == "share":
            self._share(one)
            return
        action = {"ld": self._load, "st": self._store, "misc": self._misc}.get(one.unit)
        for region in self.regions:
            if action is None:
                self._product(one, region)
            else:
                action(one, region, layer)

    def _base(self, one: Instruction, layer: int) -> int:
        plan = self.plan
        offsets = {
            "shared": 0,
            "layer": plan.layers_at + layer * plan.layer_bytes,
            "cache": plan.caches_at + layer * plan.cache_bytes,
            "position": self.position * plan.sizes.head * PARAM_BYTES,
            "last": self.last * BLOCK * VALUE_BYTES,
        }
        return offsets[one.named("space")] + one["address"] * LINE

    def _load(self, one: Instruction, region: Region, layer: int) -> None:
        base = self._base(one, layer)
        outer = np.arange(one["outer"])[:, None] * one["outer_stride"]
        starts = (base + outer + np.arange(one["loops"]) * one["stride"]).reshape(-1)
        data = region.memory[starts[:, None] + np.arange(one["length"])].reshape(-1)
        name = one.named("buffer")
        if name == "values":
            blocks = data.view(np.float16).reshape(-1, BLOCK)
            region.values[one["target"] : one["target"] + len(blocks)] = blocks
            return
        buffer = region.weights if name == "weights" else region.params
        at = one["target"] * LINE
        buffer[at : at + len(data)] = data

    def _store(self, one: Instruction, region: Region, layer: int) -> None:
        base, tokens = self._base(one, layer), one.tokens
        values = region.values[one["source"] : one["source"] + one["blocks"] * tokens]
        if one.named("mode") == "memory":
            raw = np.frombuffer(values.tobytes(), np.uint8)
            region.memory[base : base + len(raw)] = raw
            return
        rows = _rows(values, tokens)
        keys = one.named("mode") == "keys"
        codes = _coded(rows, float(self._params(region, 0, 4)[0 if keys else 2]))
        width = rows.shape[1]
        places = self.position + np.arange(tokens)
        if keys:
            at = base + places[:, None] * width + np.arange(width)
        else:
            run = places[:, None] // BLOCK * width * BLOCK + places[:, None] % BLOCK
            at = base + run + np.arange(width) * BLOCK
        region.memory[at] = codes.view(np.uint8)

    def _share(self, one: Instruction) -> None:
        size = one["blocks"] * one.tokens
        whole = np.concatenate(
            [region.values[one["source"] : one["source"] + size] for region in self.regions]
        )
        for region in self.regions:
            region.values[one["address"] : one["address"] + len(whole)] = whole

    def _params(self, region: Region, line: int, count: int) -> F32:
        at = line * LINE
        return region.params[at : at + count * PARAM_BYTES].view(np.float32)

    def _product(self, one: Instruction, region: Region) -> None:
        rows, columns, tokens = one["rows"] * BLOCK, one["columns"] * BLOCK, one.tokens
        codes, scales = self._codes(one, region)
        source = one.named("source")
        if source == "matrix":
            numbers, factors = self._matrix(one, region)
        else:
            raw = region.weights[one["weights"] * LINE :][: rows * columns].view(np.int8)
            if source == "keys":
                numbers = raw.reshape(rows, columns).astype(np.int64)
            else:
                blocks = raw.reshape(columns // BLOCK, rows, BLOCK)
                numbers = blocks.transpose(1, 0, 2).reshape(rows, columns).astype(np.int64)
            factors = np.full((rows, 1), self._params(region, 0, 4)[1 if source == "keys" else 2])
        if one["first"]:
            region.sums = np.zeros((tokens, rows))
        region.sums += grouped_sums(codes, numbers, factors, one["group"] * BLOCK)
        if one["last"]:
            out = (region.sums * scales[:, None]).astype(np.float32)
            self._write(region, one["output"], out)

    def _codes(self, one: Instruction, region: Region) -> tuple[I64, F32]:
        at, blocks, tokens = one["activations"], one["columns"], one.tokens
        codes = region.codes[at : at + blocks * tokens]
        scales = region.scales[at : at + blocks * tokens].reshape(blocks, tokens)
        assert (scales == scales[0]).all(), "codes of a row have one scale"
        return _rows(codes, tokens).astype(np.int64), scales[0]

    def _matrix(self, one: Instruction, region: Region) -> tuple[I64, F32]:
        """The integers and scales of the tile in the weight buffer: [rows, columns], [rows, g]."""
        rows, columns, keep, bits = one["rows"] * BLOCK, one["columns"], one["keep"], one["bits"]
        raw = region.weights[one["weights"] * LINE :]
        count = rows * columns * keep
        numbers = unpack(raw[: lines(count * bits // 8)], bits, count)
        numbers = (numbers ^ (1 << (bits - 1))) - (1 << (bits - 1))
        at = lines(count * bits // 8)
        if keep < BLOCK:
            size = one["rows"] * columns * keep
            index = unpack(raw[at : at + lines(size // 2)], 4, size).reshape(-1, columns, keep)
            at += lines(size // 2)
            dense = np.zeros((one["rows"], BLOCK, columns, BLOCK), np.int64)
            kept = numbers.reshape(one["rows"], BLOCK, columns, keep)
            np.put_along_axis(dense, index[:, None], kept, axis=-1)
            numbers = dense
        groups = -(-columns // one["group"]) if one["group"] else 1
        scales = raw[at : at + rows * groups * 2].view(np.float16).reshape(rows, groups)
        return numbers.reshape(rows, columns * BLOCK), scales.astype(np.float32)

    def _misc(self, one: Instruction, region: Region, layer: int) -> None:
        size = one["blocks"] * one.tokens
        left = _rows(region.values[one["left"] : one["left"] + size], one.tokens).astype(np.float32)
        result = self._operation(one, region, left)
        if not one["codes"]:
            self._write(region, one["output"], result)
            return
        largest = np.abs(result).max(axis=1)
        scales = (largest / CODES).astype(np.float32)
        codes = _coded(result, np.where(scales > 0, scales, 1)[:, None])
        out = one["output"]
        region.codes[out : out + size] = _blocks(codes)
        region.scales[out : out + size] = np.tile(scales, one["blocks"])

    def _operation(self, one: Instruction, region: Region, left: F32) -> F32:
        name = one.named("operation")
        if name in ("add", "mul"):
            size = one["blocks"] * one.tokens
            values = region.values[one["right"] : one["right"] + size]
            right = _rows(values, one.tokens).astype(np.float32)
            return left + right if name == "add" else left * right
        if name == "silu":
            return (left / (1 + np.exp(-left))).astype(np.float32)
        if name == "rope":
            return self._rope(one, region, left)
        if name == "softmax":
            return self._softmax(one, left)
        if name in ("rmsnorm", "layernorm"):
            return self._norm(one, region, left)
        return left

    def _norm(self, one: Instruction, region: Region, left: F32) -> F32:
        hidden = self.plan.sizes.hidden
        weight = self._params(region, one["right"], left.shape[1])
        eps = self._params(region, 0, 4)[3]
        if one.named("operation") == "layernorm":
            left = left - left[:, :hidden].mean(axis=1, keepdims=True)
            left[:, hidden:] = 0
        mean = np.square(left).sum(axis=1, keepdims=True) / np.float32(hidden)
        return (left / np.sqrt(mean + eps) * weight).astype(np.float32)

    def _softmax(self, one: Instruction, left: F32) -> F32:
        places = self.position + one["right"] + np.arange(one.tokens)
        seen = np.arange(left.shape[1]) <= places[:, None]
        scores = np.where(seen, left, -np.inf)
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)

    def _rope(self, one: Instruction, region: Region, left: F32) -> F32:
        head, tokens = self.plan.sizes.head, one.tokens
        table = self._params(region, one["right"], tokens * head).reshape(tokens, 1, head)
        cos, sin = table[..., : head // 2], table[..., head // 2 :]
        halves = left.reshape(tokens, -1, head)
        low, high = halves[..., : head // 2], halves[..., head // 2 :]
        turned = np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)
        return turned.reshape(left.shape).astype(np.float32)

    def _write(self, region: Region, at: int, rows: F32) -> None:
        blocks = _blocks(rows.astype(np.float16))
        region.values[at : at + len(blocks)] = blocks


def grouped_sums(codes: I64, numbers: I64, factors: F32, group: int) -> npt.NDArray[np.float64]:
    """[tokens, rows]: integer sums [tokens, columns] x [rows, columns] of each group, scaled."""
    step = group or codes.shape[1]
    found = np.zeros((len(codes), len(numbers)))
    for index, at in enumerate(range(0, codes.shape[1], step)):
        exact = codes[:, at : at + step] @ numbers[:, at : at + step].T
        found += exact * factors[:, index].astype(np.float64)
    return found


def _rows(blocks: npt.NDArray[Any], tokens: int) -> npt.NDArray[Any]:
    """[blocks x tokens, 16] as [tokens, elements]."""
    return blocks.reshape(-1, tokens, BLOCK).transpose(1, 0, 2).reshape(tokens, -1)


def _blocks(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[tokens, elements] as [blocks x tokens, 16]."""
    return rows.reshape(len(rows), -1, BLOCK).transpose(1, 0, 2).reshape(-1, BLOCK)


def _coded(values: npt.NDArray[Any], scale: F32 | float) -> npt.NDArray[np.int8]:
    return np.clip(np.rint(values / np.float32(scale)), -CODES, CODES).astype(np.int8)
