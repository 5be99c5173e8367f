"""Our side of a model measurement: a compiled artifact and sessions on it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu.session import Session
from nybble.frontend.weight_choice import AS_STORED, WeightChoice
from nybble.tools.bench.rounds import timed
from nybble.tools.models import ModelChoice, choose


class OurModel:
    """A model as `nybble generate` compiles it. choice: what to compile."""

    def __init__(
        self,
        model: str,
        activations: str,
        context: int,
        threads: int,
        weights: WeightChoice = AS_STORED,
        kv: str | None = None,
    ) -> None:
        """context: positions that a text may take; threads: the most that will be used."""
        chosen = choose(model, activations, kv, context, None, weights=weights)
        most = max(threads, chosen.options.threads)
        options = replace(chosen.options, threads=most)
        self._artifact = ModelChoice(model, options).artifact()

    def runner(self, threads: int) -> "OurRunner":
        """A text on the model."""
        return OurRunner(Session.load(self._artifact, threads))


class OurRunner:
    """See nybble.tools.bench.peers.api.ModelRunner."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def prefill(self, ids: Sequence[int]) -> float:
        """Forgets the text and feeds `ids` as one prompt, logits of the last included; seconds."""
        self._session.rewind(0)
        return timed(lambda: self._session.prefill(ids))

    def decode(self, ids: Sequence[int], start: int) -> float:
        """Forgets what follows position `start`, feeds `ids` one by one with logits; seconds."""
        session = self._session
        session.rewind(start)
        return timed(lambda: [session.decode(token) for token in ids])

    def second_half(self, window: list[int]) -> NDArray[np.float32]:
        """Logits of the window's second half, its last token left out: f32 [n / 2 - 1, vocab]."""
        size = len(window)
        found = np.empty((size, self._session.vocab), np.float32)

        def keep(start: int, logits: NDArray[np.float32]) -> None:
            found[start : start + len(logits)] = logits

        self._session.reset()
        self._session.score(window, keep)
        return found[size // 2 : size - 1]

    def close(self) -> None:
        """Ends the worker threads."""
        self._session.close()
