"""Running a compiled model on token ids, to see that and how fast it runs."""

import time
from pathlib import Path

import numpy as np

from nybble.backends.cpu.session import Session
from nybble.dialects.errors import NybbleError


def run_model(
    folder: Path, ids: str | None, tokens: int, seed: int, threads: int | None
) -> dict[str, object]:
    """Feed tokens to a model and report the likeliest next ones.

    ids: numbers separated by commas, or None for `tokens` random ones. threads: None for all.
    """
    given = None if ids is None else parse_ids(ids)
    session = Session.load(folder, threads)
    try:
        chosen = given or random_ids(session.vocab, tokens, seed)
        start = time.perf_counter()
        session.prefill(chosen)
        seconds = time.perf_counter() - start
        best = np.argsort(-session.logits)[:5]
        return {
            "tokens": len(chosen),
            "threads": session.executor.threads,
            "seconds": seconds,
            "likeliest": [[int(token), float(session.logits[token])] for token in best],
        }
    finally:
        session.close()


def parse_ids(text: str) -> list[int]:
    """Token ids out of "1,2,3"; raises NybbleError."""
    try:
        return np.array([int(part) for part in text.split(",")], np.int32).tolist()
    except (ValueError, OverflowError):
        raise NybbleError(f"'{text[:60]}' is no list of token ids", accepted="1,2,3") from None


def random_ids(vocabulary: int, count: int, seed: int) -> list[int]:
    """`count` token ids that depend on the seed alone."""
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
