"""f32 numbers as bytes of a narrower float type, and back."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
FloatName = Literal["f32", "f16", "bf16"]
FLOAT_BYTES: dict[FloatName, int] = {"f32": 4, "f16": 2, "bf16": 2}


def to_floats(values: Floats, dtype: FloatName) -> Bytes:
    """The bytes of f32 numbers in a float type, along the last axis; ties go to the even number."""
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint8)
    if dtype == "f32":
        return values.astype(np.float32).view(np.uint8)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    halves = np.where(np.isnan(values), (bits >> np.uint32(16)) | np.uint32(0x40), rounded)
    return halves.astype(np.uint16).view(np.uint8)


def from_floats(data: Bytes, dtype: FloatName) -> Floats:
    """Inverse of `to_floats`."""
    if dtype == "f16":
        return data.view(np.float16).astype(np.float32)
    if dtype == "f32":
        return data.view(np.float32)
    return (data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
