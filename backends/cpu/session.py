"""A language model in memory: feed it tokens, read logits, draw the next token.

The plan of such a model has the programs `prefill` (up to `chunk` rows), `decode` (one row),
`head_last` (logits of the last row), `sample`, and, for scoring, `head_all` and `nll`; and the io
buffers

    ids         i32 [chunk]         token ids of the rows; a caller writes them
    logits      f32 [vocab]         of the last row, written by head_last
    all_logits  f32 [rows, vocab]   of every row, written by head_all; as many rows as it holds
    targets     i32 [chunk]         tokens whose likelihood is asked for, row by row
    nll         f32 [chunk]         their negative log-likelihoods, written by nll
    next        i32 [1]             the drawn token, written by sample
    sample_f32  f32 [2]             temperature (0: the likeliest token), top_p (1: all)
    sample_i64  i64 [3]             top_k (0: all), seed, number of the draw

Everything that is computed for a token is generated code; numpy only holds these buffers.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu.executor import Executor, StepTime
from nybble.backends.cpu.plan import Plan, PlanError
from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.kv import parse as parse_kv

PROGRAMS = ("prefill", "decode", "head_last", "sample")


class SessionError(NybbleError):
    """Tokens that the model does not have, or more of them than its context holds."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits.

    temperature: 0 takes the likeliest token and ignores the rest; top_k: the number of likeliest
    tokens to draw from, 0 for all; top_p: draw from the likeliest tokens that together have this
    probability; seed: equal seeds draw equally.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise SessionError(f"temperature {self.temperature}", accepted="0 to 100")
        if not 0 <= self.top_k < 1 << 31:
            raise SessionError(f"top_k {self.top_k}", accepted="0 for all, or a positive number")
        if not 0 < self.top_p <= 1:
            raise SessionError(f"top_p {self.top_p}", accepted="above 0, up to 1")
        if not 0 <= self.seed < 1 << 63:
            raise SessionError(f"seed {self.seed}", accepted="0 to 2**63 - 1")


GREEDY = Sampling()


def check_language_model(plan: Plan) -> None:
    """Raises PlanError if the plan lacks a program or a buffer that a session needs."""
    for name in PROGRAMS:
        if name not in plan.program_table:
            raise PlanError(f"no language model: the plan has no program '{name}'")
    vocab, chunk = plan.config.vocab, plan.config.chunk
    sizes = {"ids": 4 * chunk, "logits": 4 * vocab, "next": 4, "sample_f32": 8, "sample_i64": 24}
    for name, size in sizes.items():
        buffer = plan.buffer_table.get(name)
        if buffer is None or buffer.bytes < size or buffer.kind != "io":
            raise PlanError(f"no language model: no io buffer '{name}' of {size} bytes")


class Session:
    """One text on one model; `position` tokens of it have been fed."""

    def __init__(self, executor: Executor) -> None:
        check_language_model(executor.plan)
        self.executor = executor
        self.position = 0
        self._draws = 0

    @classmethod
    def load(cls, directory: Path, threads: int | None = None) -> "Session":
        """A session on the artifact at `directory`; threads: all processors by default."""
        return cls(Executor.open(directory, threads))

    def close(self) -> None:
        """Ends the worker threads."""
        self.executor.close()

    @property
    def context(self) -> int:
        """How many tokens the text can have."""
        return self.executor.plan.config.context

    @property
    def vocab(self) -> int:
        """Token ids are 0 to vocab - 1."""
        return self.executor.plan.config.vocab

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The logits after the last token fed: f32 [vocab], a view that the next call rewrites."""
        return self.executor.view("logits", np.float32)[: self.vocab].view(np.float32)

    def reset(self) -> None:
        """Forgets the text, and starts the draws of sampling anew."""
        self.position = self._draws = 0

    def rewind(self, position: int) -> None:
        """Forgets all but the first `position` tokens; feed a token before reading logits."""
        if not 0 <= position <= self.position:
            raise SessionError(f"cannot rewind to {position}", accepted=f"0 to {self.position}")
        self._check_held(position)
        self.position = position

    def _check_held(self, position: int) -> None:
        """Raise where a cache has only codes of tokens that the next one would see as they were."""
        extra = self.executor.plan.config.extra
        kv, room = parse_kv(str(extra.get("kv", "f32"))), extra.get("kv_room", 0)
        assert isinstance(room, int)
        if extra.get("state", False) and 0 < position < self.position:
            raise SessionError(
                f"cannot rewind to {position}: what layers keep of the text knows later tokens",
                accepted=f"0 or {self.position}",
            )
        if kv.is_coded and kv.boundary(position) < min(position, self.position - room):
            first = self.position - room + kv.recent + kv.page
            raise SessionError(
                f"cannot rewind to {position}: '{kv}' has left its tokens as codes alone",
                accepted=f"0, or {first} to {self.position}",
            )

    def prefill(self, ids: Sequence[int]) -> None:
        """Feeds tokens, in chunks; the logits of the last one can be read then."""
        for rows, start in self._chunks(ids, self.executor.plan.config.chunk):
            last = start + rows == len(ids)
            self._advance(("prefill", "head_last") if last else ("prefill",), rows)

    def decode(self, token: int) -> None:
        """Feeds one token; its logits can be read then."""
        self._check_ids((token,))
        self._ids[0] = token
        self._advance(("decode", "head_last"), 1)

    def sample(self, sampling: Sampling = GREEDY) -> int:
        """Draws a token from the logits."""
        self._set(sampling)
        self.executor.run(("sample",), 1, max(self.position - 1, 0))
        return int(self._next[0])

    def generate(
        self,
        ids: Sequence[int],
        limit: int,
        sampling: Sampling = GREEDY,
        stop: Collection[int] = (),
    ) -> Iterator[int]:
        """Feeds `ids`, then yields tokens as they are drawn and feeds each of them.

        Ends after `limit` tokens, at a token of `stop` (which is yielded too) or when the context
        is full. Raises SessionError at once if `ids` is empty or does not fit.
        """
        self.prefill(ids)
        return self._continue(limit, sampling, frozenset(stop))

    def score(self, ids: Sequence[int], each: Callable[[int, NDArray[np.float32]], None]) -> None:
        """Feeds tokens and calls `each` with an index into `ids` and the logits from there on.

        The logits are f32 [rows, vocab], a view that holds until `each` returns.
        """
        if "all_logits" not in self.executor.plan.buffer_table:
            raise SessionError("this artifact was compiled without scoring (head_all)")
        room = self.executor.view("all_logits", np.float32).view(np.float32)
        logits = room[: len(room) // self.vocab * self.vocab].reshape(-1, self.vocab)
        for rows, start in self._chunks(ids, min(len(logits), self.executor.plan.config.chunk)):
            self._advance(("prefill", "head_all"), rows)
            each(start, logits[:rows])

    def likelihoods(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feeds tokens; the negative log-likelihood of each but the first: f32 [len(ids) - 1]."""
        values: list[NDArray[np.float32]] = []
        for rows, start in self._chunks(ids, self.executor.plan.config.chunk):
            following = ids[start + 1 : start + rows + 1]
            self._targets[:rows] = 0
            self._targets[: len(following)] = following
            self._advance(("prefill", "head_all", "nll"), rows)
            values.append(self._nll[: len(following)].copy())
        return np.concatenate(values)

    def profile(self, programs: tuple[str, ...], rows: int) -> list[StepTime]:
        """The time of each step of `programs` on `rows` rows after the text, which stays as it is.

        What the rows hold is whatever was fed last; their place in the state is written to.
        """
        return self.executor.profile(programs, rows, self.position)

    def _continue(self, limit: int, sampling: Sampling, stop: frozenset[int]) -> Iterator[int]:
        if limit < 1:
            return
        token = self.sample(sampling)
        yield token
        for _ in range(limit - 1):
            if token in stop or self.position == self.context:
                return
            self._ids[0] = token
            self._set(sampling)
            self._advance(("decode", "head_last", "sample"), 1)
            token = int(self._next[0])
            yield token

    def _chunks(self, ids: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
        """Checks all tokens, then puts a chunk at a time into place: (rows, index of the first)."""
        tokens = self._check_ids(ids)
        for start in range(0, len(tokens), size):
            chunk = tokens[start : start + size]
            self._ids[: len(chunk)] = chunk
            yield len(chunk), start

    def _check_ids(self, ids: Sequence[int]) -> NDArray[np.int64]:
        tokens = np.asarray(ids, np.int64)
        if not len(tokens):
            raise SessionError("no tokens to feed", accepted="one or more")
        if len(tokens) > self.context - self.position:
            raise SessionError(
                f"{len(tokens)} tokens after {self.position} do not fit the model's context",
                accepted=f"up to {self.context - self.position} more",
            )
        wrong = tokens[(tokens < 0) | (tokens >= self.vocab)]
        if len(wrong):
            raise SessionError(f"token id {wrong[0]}", accepted=f"0 to {self.vocab - 1}")
        return tokens

    def _advance(self, programs: tuple[str, ...], rows: int) -> None:
        self.executor.run(programs, rows, self.position)
        self.position += rows

    def _set(self, sampling: Sampling) -> None:
        self._sample_f32[:2] = sampling.temperature, sampling.top_p
        self._sample_i64[:3] = sampling.top_k, sampling.seed, self._draws
        self._draws += 1

    @cached_property
    def _ids(self) -> NDArray[np.int32]:
        return self.executor.view("ids", np.int32).view(np.int32)

    @cached_property
    def _targets(self) -> NDArray[np.int32]:
        return self.executor.view("targets", np.int32).view(np.int32)

    @cached_property
    def _nll(self) -> NDArray[np.float32]:
        return self.executor.view("nll", np.float32).view(np.float32)

    @cached_property
    def _next(self) -> NDArray[np.int32]:
        return self.executor.view("next", np.int32).view(np.int32)

    @cached_property
    def _sample_f32(self) -> NDArray[np.float32]:
        return self.executor.view("sample_f32", np.float32).view(np.float32)

    @cached_property
    def _sample_i64(self) -> NDArray[np.int64]:
        return self.executor.view("sample_i64", np.int64).view(np.int64)
