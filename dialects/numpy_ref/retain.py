"""Attention over the tokens that a budget keeps: recent ones and those that got most attention."""

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.arrays import F32, KvArray

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
State = tuple[KvArray, KvArray, F32]
"""keys [heads, d, slots], values [heads, slots, d], mass f32 [heads, slots]."""


def live_slots(position: int, budget: int, slots: int) -> Bools:
    """Which slots hold a token when the one at `position` has come: bool [slots].

    The first `budget` slots are of tokens that left the recent ones, the others a ring of these.
    """
    recent = slots - budget
    heavy, last = min(max(position + 1 - recent, 0), budget), min(position + 1, recent)
    numbers = np.arange(slots)
    return (numbers < heavy) | ((numbers >= budget) & (numbers < budget + last))


def retain(
    q: F32, rows: tuple[F32, F32], state: State, position: int, *, budget: int, scale: float
) -> tuple[F32, State]:
    """One row after the other: its token takes a slot, then it attends to all that are kept.

    q f32 [n, q_heads * d]; rows: keys and values f32 [n, heads * d]. A token that leaves the ring
    of recent ones takes a free slot, or that of the token that got the least attention since it
    came, if it got more itself (H2O, arXiv:2306.14048). `mass` is the sum of the probabilities of
    all query heads of a group and all rows since. Returns f32 like q and the new state.
    """
    keys, values, mass = (one.copy() for one in state)
    heads, dim, slots = keys.shape
    count = len(q)
    queries = q.astype(np.float64).reshape(count, heads, -1, dim)
    new = [one.reshape(count, heads, dim).astype(keys.dtype) for one in rows]
    out = np.zeros(queries.shape)
    sums = mass.astype(np.float64)
    for row in range(count):
        at = position + row
        for head in range(heads):
            slot = _freed(sums[head], at, budget, slots)
            ring = budget + at % (slots - budget)
            keys[head, :, slot], values[head, slot] = keys[head, :, ring], values[head, ring]
            sums[head, slot] = sums[head, ring]
            keys[head, :, ring], values[head, ring] = new[0][row, head], new[1][row, head]
            sums[head, ring] = 0
        live = live_slots(at, budget, slots)
        wide = np.where(live, keys.astype(np.float64), 0.0)
        weights = _softmax(scale * queries[row] @ wide, live)
        out[row] = weights @ np.where(live[:, None], values.astype(np.float64), 0.0)
        sums = np.where(live, sums + weights.sum(axis=1), sums)
    return out.reshape(q.shape).astype(np.float32), (keys, values, sums.astype(np.float32))


def _freed(mass: F64, position: int, budget: int, slots: int) -> int:
    """The slot that the token which leaves the ring goes to; its own where it is dropped."""
    recent = slots - budget
    ring = budget + position % recent
    if position < recent:
        return ring
    if position - recent < budget:
        return position - recent
    least = int(np.argmin(mass[:budget]))
    return least if mass[least] < mass[ring] else ring


def _softmax(logits: F64, live: Bools) -> F64:
    masked = np.where(live, logits, -np.inf)
    weights = np.exp(masked - masked.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
