"""Arguments of a PTX kernel as they are spelt on a command line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.sim.arguments import Argument
from nybble.tools.diagnostics import UsageError

Array = npt.NDArray[Any]

DTYPES: dict[str, type[Any]] = {
    "f16": np.float16, "f32": np.float32, "f64": np.float64,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "bf16": np.uint16, "e4m3": np.uint8, "e5m2": np.uint8,
}  # fmt: skip
"""bf16 and the 8-bit floats are held as their bits."""
ACCEPTED = (
    "a number such as 64, 0x40 or 1.5; TYPE:SHAPE such as f32:16x64, with =zeros, =random, "
    "=arange or =NUMBER behind it; or FILE.npy"
)
_BUFFER = re.compile(r"(?P<dtype>\w+):(?P<shape>\d+(?:x\d+)*)(?:=(?P<fill>\S+))?$")
_INTEGER = re.compile(r"-?(?:0x[0-9a-fA-F]+|\d+)$")
_MOST_ELEMENTS = 1 << 30
_SPREAD = 8
"""Random integers lie in -8 .. 7, unsigned ones in 0 .. 15."""


@dataclass
class Spelt:
    """An argument: how it was spelt, its value, and its type if it is a buffer."""

    text: str
    value: Argument
    dtype: str = ""

    @property
    def array(self) -> Array | None:
        """The array of a buffer."""
        return self.value if isinstance(self.value, np.ndarray) else None

    def values(self) -> Array:
        """The values of a buffer as f64 or integers."""
        assert isinstance(self.value, np.ndarray)
        if self.dtype == "bf16":
            return (self.value.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return self.value


def parse_argument(text: str, random: np.random.Generator) -> Spelt:
    """The argument that a text spells; raises UsageError, or OSError for a file."""
    if text.endswith(".npy"):
        return Spelt(text, _load(text))
    if _INTEGER.match(text):
        return Spelt(text, int(text, 0))
    if found := _BUFFER.match(text):
        return Spelt(text, _buffer(text, found, random), found["dtype"])
    try:
        return Spelt(text, float(text))
    except ValueError:
        raise UsageError(f"'{text}' is no argument of a kernel", accepted=ACCEPTED) from None


def _load(text: str) -> Array:
    try:
        return np.ascontiguousarray(np.load(Path(text), allow_pickle=False))
    except ValueError as error:
        raise UsageError(f"'{text}' is no array: {error}", accepted="a .npy file") from None


def _buffer(text: str, found: re.Match[str], random: np.random.Generator) -> Array:
    if found["dtype"] not in DTYPES:
        raise UsageError(f"'{text}' has an unknown type", accepted=", ".join(DTYPES))
    shape = tuple(int(side) for side in found["shape"].split("x"))
    if np.prod(shape, dtype=np.float64) > _MOST_ELEMENTS:
        raise UsageError(f"'{text}' is too large", accepted=f"{_MOST_ELEMENTS} elements")
    dtype = DTYPES[found["dtype"]]
    fill = found["fill"] or "random"
    if fill == "zeros":
        return np.zeros(shape, dtype)
    if fill == "arange":
        return np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    if fill != "random":
        try:
            return np.full(shape, float(fill)).astype(dtype)
        except ValueError:
            raise UsageError(f"'{text}' has an unknown content", accepted=ACCEPTED) from None
    return _random(found["dtype"], shape, random)


def _random(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Standard normal floats, small integers."""
    if name == "bf16":
        values = random.standard_normal(shape).astype(np.float32)
        return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    if name in ("e4m3", "e5m2"):
        return random.integers(0, 0x48, shape).astype(np.uint8)
    dtype = np.dtype(DTYPES[name])
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    low = 0 if dtype.kind == "u" else -_SPREAD
    return random.integers(low, low + 2 * _SPREAD, shape).astype(dtype)
