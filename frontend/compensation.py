"""GPTQ: rounding that makes up for the error of one column in the columns that are not yet rounded.

With inputs X, a weight W that is rounded to W' should make `|X W'^T - X W^T|**2` small, which is a
quadratic form of `H = X^T X`. Column by column, what rounding does to the product is undone as well
as the later columns can (arXiv:2210.17323). For the scales of a group its numbers as they have
become by then are taken, made smaller and larger by several factors; each is tried to the end of
the group, and each row keeps the one whose products err least.

The algorithm looks at a format from outside: what it makes of a group, and its nearest levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit.formats import Format, TreeParts, Weight
from nybble.dialects.lowbit.formats.levels import Levels

F32 = npt.NDArray[np.float32]
FACTORS = (1.0, 1.15, 0.9, 0.8, 0.7)
DAMPING = 0.3
"""Share of the mean of H's diagonal that is added to it. Some hundreds or thousands of tokens tell
less than H pretends: with 0.01 the products of SmolLM2's gates err more on other text than with the
format's own rounding, although they err six times less on the text of the calibration."""
SLAB = 512
"""Rows that are rounded at a time, so that a group stays in the cache at all scales."""
RUN = 32
"""Columns whose errors are collected before the columns behind them hear of it."""
_ARRAYS = ("codes", "scale", "zero", "selector", "zero_codes", "zero_points")
_TREES = ("scale_parts", "zero_parts")


@dataclass(frozen=True, eq=False)
class Hessian:
    """`H = X^T X` of inputs X, damped, as what the algorithm needs of it.

    factor: f32 [k, k], upper triangular, `H**-1 = factor^T factor`.
    """

    factor: F32

    @classmethod
    def of(cls, inputs: F32) -> "Hessian":
        """Of f32 [n, k]; NybbleError where they are not finite."""
        if not np.isfinite(inputs).all():
            raise NybbleError(
                "a calibration gives activations that are not finite",
                accepted="a model that computes finite numbers on the text of the calibration",
            )
        exact = inputs.astype(np.float64)
        squares = exact.T @ exact
        mean = float(np.trace(squares)) / max(len(squares), 1)
        if mean == 0:
            return cls(np.eye(len(squares), dtype=np.float32))
        squares /= mean
        np.fill_diagonal(squares, squares.diagonal() + DAMPING)
        # The Cholesky factor from the last column up is R with H = R R^T, and factor = R**-1.
        lower = np.linalg.cholesky(squares[::-1, ::-1])
        factor = np.linalg.inv(lower[::-1, ::-1])
        return cls(np.ascontiguousarray(np.triu(factor), np.float32))


def reason_against(form: Format) -> str | None:
    """Why weights cannot be rounded so to a format, or None; plain floats have nothing to gain."""
    if form.is_plain:
        return None
    if not form.has_codes:
        return f"its element {form.element.spell} has no code per weight"
    if form.is_streamed or form.corrections:
        return "its weights are not rounded group by group along rows"
    return None


def compensated(form: Format, values: F32, hessian: Hessian | None) -> Weight:
    """f32 [rows, cols] rounded for inputs of a Hessian; as the format rounds if there is none.

    NybbleError for a format that `reason_against` speaks against.
    """
    if hessian is None or form.is_plain or not values.size:
        return form.quantize(values)
    reason = reason_against(form)
    if reason is not None:
        raise NybbleError(
            f"'{form.spec}' cannot be rounded with compensation: {reason}",
            accepted="a format with a code per weight and groups along rows; --quantizer nearest",
        )
    slabs = [
        _compensated_rows(form, values[start : start + SLAB], hessian.factor)
        for start in range(0, len(values), SLAB)
    ]
    return _joined(slabs, axis=0)


def _compensated_rows(form: Format, values: F32, factor: F32) -> Weight:
    """A slab of rows, block after block of the columns that the format keeps together."""
    cols = values.shape[1]
    width = cols if form.grouping.size is None else form.block
    left = values.T.copy()
    blocks: list[Weight] = []
    for start in range(0, cols, width):
        end = start + width
        weight, errors = _best_scales(form, left[start:end], factor[start:end, start:end])
        left[end:] -= factor[start:end, end:].T @ errors
        blocks.append(weight)
    return _joined(blocks, axis=1)


def _best_scales(form: Format, block: F32, factor: F32) -> tuple[Weight, F32]:
    """A block f32 [cols, rows] rounded at the best scales for each row, and its errors alike."""
    rows = block.shape[1]
    sizes = np.array(FACTORS, np.float32)[:, None, None] * block.T
    weight = form.quantize(sizes.reshape(-1, len(block)))
    codes, errors = _round_columns(form, weight, np.tile(block, len(FACTORS)), factor)
    losses = np.square(errors).sum(axis=0).reshape(len(FACTORS), rows)
    chosen = losses.argmin(axis=0) * rows + np.arange(rows)
    rounded = replace(weight, codes=np.ascontiguousarray(codes.T))
    return _mapped([rounded], lambda found: found[0][chosen]), errors[:, chosen]


def _round_columns(
    form: Format, weight: Weight, left: F32, factor: F32
) -> tuple[npt.NDArray[np.uint8], F32]:
    """Codes and errors, each [cols, rows], of f32 `left` [cols, rows], which is used up.

    weight: has the scales of all its groups. An error is in units of what it does to the products.
    """
    size = form.group_size(len(left))
    codes, errors = np.empty(left.shape, np.uint8), np.empty_like(left)
    for start, end in _runs(len(left), size):
        levels = Levels.of(form.element, weight, start // size)
        for col in range(start, end):
            codes[col], means = levels.nearest(left[col])
            errors[col] = (left[col] - means) / factor[col, col]
            left[col + 1 : end] -= factor[col, col + 1 : end, None] * errors[col]
        left[end:] -= factor[start:end, end:].T @ errors[start:end]
    return codes, errors


def _runs(cols: int, size: int) -> list[tuple[int, int]]:
    """Columns from and to, RUN at most, that lie in one group of `size`."""
    return [
        (start, min(start + RUN, group + size))
        for group in range(0, cols, size)
        for start in range(group, group + size, RUN)
    ]


def _joined(weights: Sequence[Weight], axis: int) -> Weight:
    """Weights of one format as one, below or beside each other."""
    return _mapped(weights, lambda arrays: np.concatenate(arrays, axis=axis))


def _mapped(weights: Sequence[Weight], function: Callable[[list[Any]], Any]) -> Weight:
    """A weight whose arrays are made of the arrays of others, without what these have not."""
    found: dict[str, Any] = {}
    for name in _ARRAYS:
        arrays = [getattr(one, name) for one in weights]
        found[name] = None if arrays[0] is None else function(arrays)
    for name in _TREES:
        trees: list[TreeParts | None] = [getattr(one, name) for one in weights]
        halves = [tree for tree in trees if tree is not None]
        found[name] = (
            None
            if not halves
            else TreeParts(
                function([tree.base for tree in halves]), function([tree.codes for tree in halves])
            )
        )
    return replace(weights[0], **found)
