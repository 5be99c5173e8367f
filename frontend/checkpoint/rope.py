"""Rotary position parameters in the form of transformers 5 (`rope_parameters`), checked.

Types: "default", "linear", "llama3", "yarn"; others raise. The formulas are those of transformers'
modeling_rope_utils; YaRN: Peng et al., arXiv:2309.00071.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.frontend.checkpoint.fields import Fields

MAX_CONTEXT = 1 << 28
_LARGEST = 1e12

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
_OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
}
_WITH_ORIGINAL_CONTEXT = ("llama3", "yarn")


def checked_rope(fields: Fields) -> dict[str, Any]:
    """One rope_parameters entry: "rope_type", "rope_theta" and what the type needs, as floats."""
    kind = fields.get("rope_type") or fields.get("type") or "default"
    if not isinstance(kind, str) or kind not in _REQUIRED:
        raise fields.fail("rope_type", f"one of {', '.join(_REQUIRED)}")
    if fields.number("partial_rotary_factor", 0.0, 1.0) != 1.0:
        raise fields.fail("partial_rotary_factor", "1 (rotation of whole heads)")
    found: dict[str, Any] = {
        "rope_type": kind,
        "rope_theta": fields.number("rope_theta", 1.0, _LARGEST),
    }
    for key in _REQUIRED[kind]:
        found[key] = fields.number(key, 1e-6, _LARGEST)
    for key in _OPTIONAL.get(kind, ()):
        if fields.get(key) is not None:
            found[key] = fields.number(key, 0.0, _LARGEST)
    if kind in _WITH_ORIGINAL_CONTEXT:
        key = "original_max_position_embeddings"
        found[key] = fields.integer(key, 1, MAX_CONTEXT)
    if kind == "llama3" and found["high_freq_factor"] <= found["low_freq_factor"]:
        raise fields.fail("high_freq_factor", "more than low_freq_factor")
    return found


def llama3_factors(rope: Mapping[str, Any], head_dim: int) -> NDArray[np.float32]:
    """The divisors [head_dim / 2] by which Llama 3.1's rule slows each rotation frequency."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    wavelength = 2 * math.pi * rope["rope_theta"] ** exponent
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] / wavelength
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def llama3_from_factors(factors: NDArray[np.float32], theta: float) -> dict[str, Any] | None:
    """The Llama 3.1 parameters whose divisors are `factors` [head_dim / 2], or None.

    A GGUF file keeps only the divisors. Every published model with this rule uses low and high
    frequency factors 1 and 4 over an original context of 8192; only `factor` varies.
    """
    if not np.isfinite(factors).all() or factors.max() < 1.0:
        return None
    rope: dict[str, Any] = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = llama3_factors(rope, 2 * len(factors))
    return rope if np.allclose(expected, factors, rtol=1e-3) else None
