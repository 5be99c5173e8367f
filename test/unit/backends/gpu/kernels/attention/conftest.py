"""Random caches with what they mean, and kernels run on them in the simulator."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.attention.decode import decode_image
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec
from nybble.backends.gpu.sim.simulate import simulate


def to_bf16(values):
    """u16 bits of the nearest bf16."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    """f32 of bf16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@dataclass
class Problem:
    """Arguments of a decode kernel and the result in f64."""

    spec: DecodeSpec
    lengths: tuple[int, ...]
    seed: int = 0
    arguments: dict = field(default_factory=dict)

    def __post_init__(self):
        spec, self.random = self.spec, np.random.default_rng(self.seed)
        self.wide = spec.sequences, spec.kv_heads, spec.context, spec.head_dim
        query = (spec.sequences, spec.kv_heads * spec.group, spec.head_dim)
        self.q, self.arguments["q"] = self.stored(self.random.standard_normal(query) * 1.5)
        self.keys, self.values = self.codes() if spec.quantized else self.floats()
        rows = spec.heads * spec.group * spec.splits
        self.arguments |= {
            "lengths": np.array(self.lengths, np.int32),
            "out": np.full_like(self.arguments["q"], 0x7FFF),
        }
        if spec.block:
            self.lists()
        if spec.splits > 1:
            self.arguments |= {
                "partial": np.full(rows * spec.head_dim, np.nan, np.float32),
                "statistics": np.full(rows * 2, np.nan, np.float32),
                "counters": np.zeros(spec.heads, np.int32),
            }

    def stored(self, values):
        """The values in the kernel's type: as f64, and as the u16 of its buffer."""
        if self.spec.half == "bf16":
            bits = to_bf16(values)
            return from_bf16(bits).astype(np.float64), bits
        half = values.astype(np.float16)
        return half.astype(np.float64), half.view(np.uint16)

    def floats(self):
        """Keys and values of a cache of floats."""
        (k, kb), (v, vb) = (self.stored(self.random.standard_normal(self.wide)) for _ in "kv")
        self.arguments |= {"k": kb, "v": vb}
        return k, v

    def codes(self):
        """Keys and values of a cache of codes."""
        spec, top = self.spec, 2**self.spec.bits
        by_group = (*self.wide[:2], spec.context // spec.key_group, spec.head_dim)
        shapes = {"k": by_group, "v": self.wide[:3]}
        found = []
        for name, shape in shapes.items():
            scales = (self.random.uniform(0.5, 1.5, shape) * 3 / top).astype(np.float16)
            minima = self.random.normal(-1.5, 0.3, shape).astype(np.float16)
            codes = self.random.integers(0, top, self.wide, np.uint8)
            each = 8 // spec.bits
            parts = codes.reshape(*self.wide[:3], -1, each)
            packed = sum(parts[..., i] << (i * spec.bits) for i in range(each))
            self.arguments |= {name: packed.astype(np.uint8)}
            self.arguments |= {f"{name}_scales": scales, f"{name}_minima": minima}
            wide = [one.astype(np.float64) for one in (scales, minima)]
            if name == "k":
                wide = [np.repeat(one, spec.key_group, 2) for one in wide]
            else:
                wide = [one[..., None] for one in wide]
            found.append(codes * wide[0] + wide[1])
        return found

    def lists(self):
        """For each head a random choice of blocks: none, some, all."""
        spec, most = self.spec, self.spec.context // self.spec.block
        counts = np.resize([most // 2, most, 0], spec.heads).astype(np.int32)
        order = [self.random.permutation(most) for _ in range(spec.heads)]
        table = np.array(order, np.int32).reshape(spec.heads, most)
        self.arguments |= {"block_list": table, "block_counts": counts}

    def visible(self, sequence, head):
        """Which keys a head sees."""
        spec, places = self.spec, np.arange(self.spec.context)
        seen = places < self.lengths[sequence]
        if spec.block:
            row = sequence * spec.kv_heads + head
            count = self.arguments["block_counts"][row]
            seen &= np.isin(places // spec.block, self.arguments["block_list"][row, :count])
        return seen

    def exact(self):
        """f64, shaped as the query; 0 where there is no key."""
        spec, result = self.spec, np.zeros(self.q.shape)
        for sequence in range(spec.sequences):
            for head in range(spec.kv_heads):
                seen = self.visible(sequence, head)
                if not seen.any():
                    continue
                rows = slice(head * spec.group, (head + 1) * spec.group)
                k, v = self.keys[sequence, head, seen], self.values[sequence, head, seen]
                logits = self.q[sequence, rows] @ k.T * spec.scale
                weights = np.exp(logits - logits.max(1, keepdims=True))
                result[sequence, rows] = weights / weights.sum(1, keepdims=True) @ v
        return result

    def run(self, image):
        """The simulator's report; the kernel's results are then in `arguments`."""
        report = simulate(image, {p.name: self.arguments[p.name] for p in image.parameters})
        report.check()
        return report

    def nmse(self):
        """Squared error of the kernel's result over squared size of the exact one."""
        bits = self.arguments["out"]
        got = from_bf16(bits) if self.spec.half == "bf16" else bits.view(np.float16)
        exact = self.exact()
        return float(((got.astype(np.float64) - exact) ** 2).sum() / (exact**2).sum())


@pytest.fixture(scope="session")
def problem():
    """The class Problem."""
    return Problem


@pytest.fixture(scope="session")
def decode_spec():
    """A small DecodeSpec, with changes."""

    def make(**changes):
        small = {"sequences": 2, "kv_heads": 1, "group": 4, "head_dim": 128, "context": 128}
        return DecodeSpec(**small | {"scale": 128**-0.5, "warps": 2} | changes)

    return make


@pytest.fixture(scope="session")
def compiled():
    """The image of a spec, compiled once."""
    known = {}

    def image(spec, arch="sm_90a"):
        if (spec, arch) not in known:
            known[spec, arch] = decode_image(spec, find_arch(arch))
        return known[spec, arch]

    return image
