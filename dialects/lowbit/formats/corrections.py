"""What is added to or removed from a quantized matrix: pruning, outliers, low-rank residual."""

from dataclasses import replace

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.lowbit.formats.structure import LowRank, NOfM, Outliers
from nybble.dialects.lowbit.formats.weight import Outlying, Weight


def prune(pattern: NOfM, values: F32) -> F32:
    """f32 [rows, cols] with all but the largest `keep` of every `of` of a row set to zero."""
    rows, cols = values.shape
    runs = values.reshape(rows, cols // pattern.of, pattern.of)
    order = np.argsort(-np.abs(runs), axis=-1, kind="stable")
    kept = np.zeros(runs.shape, bool)
    np.put_along_axis(kept, order[:, :, : pattern.keep], True, axis=-1)
    return np.where(kept, runs, np.float32(0)).reshape(rows, cols)


def attach(description: Description, weight: Weight, values: F32) -> Weight:
    """The weight with the corrections of its format, each made for what is still wrong."""
    for correction in description.corrections:
        residual = values - weight.dequantize()
        if isinstance(correction, Outliers):
            weight = replace(weight, outliers=_outliers(correction, residual))
        elif isinstance(correction, LowRank):
            weight = replace(weight, low_rank=_low_rank(correction, residual))
    return weight


def _outliers(correction: Outliers, residual: F32) -> Outlying:
    """The places of largest error, in row order (as CSR has them)."""
    count = residual.size * correction.permille // 1000
    worst = np.sort(np.argsort(-np.abs(residual), axis=None, kind="stable")[:count])
    rows, cols = np.divmod(worst, max(residual.shape[1], 1))
    values = round_to(correction.dtype, residual.reshape(1, residual.size)[:, worst])[0]
    return Outlying(rows.astype(np.int32), cols.astype(np.int32), values)


def _low_rank(correction: LowRank, residual: F32) -> tuple[F32, F32]:
    """Truncated SVD: f32 [rows, rank] and f32 [rank, cols]."""
    left, singular, right = np.linalg.svd(residual, full_matrices=False)
    rank = min(correction.rank, len(singular))
    thin = np.ascontiguousarray(left[:, :rank] * singular[:rank])
    return round_to(correction.dtype, thin), round_to(correction.dtype, right[:rank])
