"""Attention over the tokens that a budget keeps: recent ones, and others that scored high."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.arrays import F32, KvArray

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """The state: keys [heads, d, slots], values [heads, slots, d], moves i32 [heads, positions],
    and where tokens are chosen mass f32 [heads, 1 + queries, slots].

    moves: at a position modulo their number, the slot of the token that left the ring then; that
    of the ring itself where it was dropped. mass: first the score of each slot's token, then what
    each of the last queries added to it.
    """

    keys: KvArray
    values: KvArray
    moves: Ints
    mass: F32 | None = None

    def copied(self) -> "Kept":
        """The same, to be changed."""
        mass = None if self.mass is None else self.mass.copy()
        return Kept(self.keys.copy(), self.values.copy(), self.moves.copy(), mass)


@dataclass(frozen=True)
class Budget:
    """tokens: slots that are not of the ring. run: tokens that go together. scale: of logits."""

    tokens: int
    scale: float
    run: int = 1


def live_slots(position: int, budget: int, slots: int) -> Bools:
    """Which slots hold a token when the one at `position` has come: bool [slots].

    The first `budget` slots are of tokens that left the recent ones, the others a ring of these.
    """
    recent = slots - budget
    heavy, last = min(max(position + 1 - recent, 0), budget), min(position + 1, recent)
    numbers = np.arange(slots)
    return (numbers < heavy) | ((numbers >= budget) & (numbers < budget + last))


def retain(
    q: F32,
    rows: tuple[F32, F32],
    state: Kept,
    position: int,
    budget: Budget,
    scores: F32 | None = None,
) -> tuple[F32, Kept]:
    """One row after the other: its token takes a slot, then it attends to all that are kept.

    q f32 [n, q_heads * d]; rows: keys and values f32 [n, heads * d]; scores f32 [n, heads] of
    tokens that a learned head gives one. A run of tokens that leaves the ring of recent ones takes
    free slots, or those of the run of the least score, if its own is larger. A score is the given
    one (Locret, arXiv:2410.01805), or the sum of the probabilities of all query heads of a group:
    of all queries since the token came (H2O, arXiv:2306.14048), or of the last ones (ALISA,
    arXiv:2403.17312). Without a mass the moves of another layer are repeated (WindowKV,
    arXiv:2503.17922). Returns f32 like q and the new state.
    """
    new = state.copied()
    heads, dim, slots = new.keys.shape
    queries = q.astype(np.float64).reshape(len(q), heads, -1, dim)
    tokens = [one.reshape(len(q), heads, dim).astype(new.keys.dtype) for one in rows]
    out = np.zeros(queries.shape)
    sums = None if new.mass is None else new.mass.astype(np.float64)
    for row, at in enumerate(range(position, position + len(q))):
        ring = budget.tokens + at % (slots - budget.tokens)
        for head in range(heads):
            place = at % new.moves.shape[1]
            if sums is not None:
                new.moves[head, place] = _freed(sums[head], new.moves[head], at, budget)
            _move(new, sums, head, ring, int(new.moves[head, place]))
            new.keys[head, :, ring] = tokens[0][row, head]
            new.values[head, ring] = tokens[1][row, head]
            if sums is not None:
                sums[head, :, ring] = 0 if scores is None else scores[row, head]
        live = live_slots(at, budget.tokens, slots)
        wide = np.where(live, new.keys.astype(np.float64), 0.0)
        weights = _softmax(budget.scale * queries[row] @ wide, live)
        out[row] = weights @ np.where(live[:, None], new.values.astype(np.float64), 0.0)
        if sums is not None and scores is None:
            _add(sums, np.where(live, weights.sum(axis=1), 0.0), at)
    kept = new if sums is None else replace(new, mass=sums.astype(np.float32))
    return out.reshape(q.shape).astype(np.float32), kept


def _freed(mass: F64, moves: Ints, position: int, budget: Budget) -> int:
    """The slot that the token which leaves the ring goes to; its own where it is dropped."""
    recent = mass.shape[1] - budget.tokens
    ring, token, run = budget.tokens + position % recent, position - recent, budget.run
    if token < 0:
        return ring
    if token < budget.tokens:
        return token
    if token % run:
        before = int(moves[(position - 1) % len(moves)])
        return before + 1 if before < budget.tokens else ring
    leaving = budget.tokens + (position + np.arange(run)) % recent
    held = mass[0, : budget.tokens].reshape(-1, run).sum(axis=1)
    least = int(np.argmin(held))
    return least * run if held[least] < mass[0, leaving].sum() else ring


def _move(state: Kept, sums: F64 | None, head: int, ring: int, slot: int) -> None:
    """Copy a token from the ring to a slot; one that there is not drops it."""
    if not 0 <= slot < state.keys.shape[2]:
        return
    state.keys[head, :, slot] = state.keys[head, :, ring]
    state.values[head, slot] = state.values[head, ring]
    if sums is not None:
        sums[head, :, slot] = sums[head, :, ring]


def _add(mass: F64, weights: F64, position: int) -> None:
    """Add what the query at a position gave, f64 [heads, slots], and forget the oldest.

    Sums are made anew every so many queries, lest errors of differences add up where it counts.
    """
    queries = mass.shape[1] - 1
    if not queries:
        mass[:, 0] += weights
        return
    place = 1 + position % queries
    mass[:, 0] += weights - mass[:, place]
    mass[:, place] = weights
    if (position + 1) % queries == 0:
        mass[:, 0] = mass[:, 1:].sum(axis=1)


def _softmax(logits: F64, live: Bools) -> F64:
    masked = np.where(live, logits, -np.inf)
    weights = np.exp(masked - masked.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
