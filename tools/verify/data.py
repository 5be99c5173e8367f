"""Inputs of a case: ordinary numbers, and those at which kernels go wrong."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Format, FormatError, Weight
from nybble.tools.verify.cases import Case

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
UNIT = np.float32(0.5)
"""The scale of exact cases; a power of two."""
LARGEST_INTEGER = 127
TINY = np.float32(2.0**-20)
"""Weights of this size have scales of f16 that are denormal."""
MODERATE = 1e3


@dataclass(frozen=True)
class Data:
    """The arguments of a case. weights: one, or two with a gate; stored: their storage bytes.

    exact: no sum of products rounds. finite: whether all weights are.
    """

    x: F32
    weights: tuple[Weight, ...]
    stored: tuple[U8, ...]
    bias: F32
    residual: F32
    exact: bool
    finite: bool


def make(case: Case, seed: int) -> Data:
    """The data of a case; equal for equal seeds and numbers."""
    random = np.random.default_rng([seed, case.number, 1])
    kernel = case.kernel
    description = formats.get(kernel.spec)
    count = 2 if kernel.epilogue == "glu" else 1
    stored = tuple(stored_weight(description, case, random) for _ in range(count))
    weights = tuple(description.unpack(raw, kernel.cols) for raw in stored)
    x = activation(case, random, group_of(description, kernel.cols))
    rows = kernel.rows
    bias = random.integers(-8, 8, rows).astype(np.float32)
    residual = random.integers(-8, 8, (case.tokens, rows)).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        dense = [one.dequantize() for one in weights]
        finite = all(bool(np.isfinite(values).all()) for values in dense)
        exact = finite and case.data == "exact" and all(is_exact(x, values) for values in dense)
    return Data(x, weights, stored, bias, residual, exact, finite)


def group_of(description: Format, cols: int) -> int:
    """Columns that share a scale, or 1."""
    alone = description.is_plain or description.grouping.axis == "rows"
    return 1 if alone else description.group_size(cols)


def is_exact(x: F32, dense: F32) -> bool:
    """Whether no sum of some of the products, in halves, leaves the integers that f32 holds."""
    halves = np.abs(dense / UNIT)
    whole = bool((halves == np.rint(halves)).all())
    return whole and float((np.abs(x) @ halves.T).max(initial=0.0)) < 2.0**22


def stored_weight(description: Format, case: Case, random: np.random.Generator) -> U8:
    """The storage bytes of a weight."""
    shape = (case.kernel.rows, case.kernel.cols)
    values = random.standard_normal(shape, np.float32)
    group = group_of(description, shape[1])
    if case.data == "zero_groups":
        values *= np.repeat(random.random((shape[0], shape[1] // group)) < 0.5, group, axis=1)
    elif case.data == "extreme":
        values = np.where(values > 0, np.float32(1), np.float32(-1))
    elif case.data == "denormal":
        values *= TINY
    try:
        made = description.quantize(values)
        return description.pack(altered(made, case.data, random))
    except FormatError:
        return random_bytes(description, shape, random)


def altered(made: Weight, data: str, random: np.random.Generator) -> Weight:
    """A weight with the scales that a kind of data asks for."""
    if data == "exact" and made.codes is not None:
        return with_scales(made, UNIT, np.ones_like(made.scale, bool))
    if data == "infinite" and made.codes is not None:
        return with_scales(made, np.float32(np.inf), random.random(made.scale.shape) < 0.1)
    return made


def with_scales(made: Weight, value: np.float32, where: npt.NDArray[np.bool_]) -> Weight:
    """A weight whose scales (the bases of two-level ones) are `value` at some places."""
    if made.scale_parts is not None:
        base = made.scale_parts.base
        mask = where[: base.shape[0], : base.shape[1]]
        parts = replace(made.scale_parts, base=np.where(mask, value, base).astype(np.float32))
        zeros = made.zero_parts
        if zeros is not None and np.isfinite(value):
            zeros = replace(zeros, base=np.full_like(zeros.base, value))
        return replace(made, scale_parts=parts, zero_parts=zeros)
    scale = np.where(where, value, made.scale).astype(np.float32)
    zero = made.zero
    if zero is not None and np.isfinite(value):
        zero = np.rint(zero / value) * value
    return replace(made, scale=scale, zero=zero)


def random_bytes(description: Format, shape: tuple[int, int], random: np.random.Generator) -> U8:
    """Storage bytes of a format that nothing quantizes to, with numbers of moderate size."""
    rows, cols = shape
    raw = random.integers(0, 256, (rows, description.row_bytes(cols)), np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(description.unpack(raw, cols).dequantize()).max(axis=1, initial=0)
    raw[~(size < MODERATE)] &= 0x3F  # then every f16 is below 2
    return raw


def activation(case: Case, random: np.random.Generator, group: int) -> F32:
    """f32 [tokens, cols]."""
    shape = (case.tokens, case.kernel.cols)
    if case.data == "exact":
        x = random.integers(-LARGEST_INTEGER, LARGEST_INTEGER + 1, shape).astype(np.float32)
        x[:, :: min(16, shape[1])] = LARGEST_INTEGER  # so that the scale of each group is 1
        return x
    if case.data == "extreme":
        return np.where(random.random(shape) < 0.5, np.float32(2), np.float32(-2))
    x = random.standard_normal(shape, np.float32)
    if case.data == "zero_groups" and group > 1:
        x *= np.repeat(random.random((shape[0], shape[1] // group)) < 0.5, group, axis=1)
    return x
