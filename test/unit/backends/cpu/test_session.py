"""A session feeds tokens through generated code, from an artifact or a plan in memory."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nybble.backends.cpu.artifact_writer import save
from nybble.backends.cpu.elf import ObjectError
from nybble.backends.cpu.executor import Executor
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import native
from nybble.backends.cpu.plan import Buffer, BufferRef, Kernel, Kind, PlanError, Program, Step
from nybble.backends.cpu.runner import EXTERNALS
from nybble.backends.cpu.session import Sampling, Session, SessionError

HOT = Sampling(temperature=1.0, seed=5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, toy) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "toy"
    save(path, toy.plan, native(), toy.objects, toy.weight)
    return path


@pytest.fixture(params=[1, 3])
def session(directory: Path, request: pytest.FixtureRequest) -> Iterator[Session]:
    made = Session.load(directory, request.param)
    yield made
    made.close()


def text(session: Session) -> list[int]:
    return session.executor.view("text", np.int32)[: session.position].tolist()


def test_prompt_longer_than_a_chunk(session: Session, toy) -> None:
    prompt = [i % 16 for i in range(21)]
    session.prefill(prompt)
    assert session.position == 21
    assert text(session) == prompt
    assert session.logits.shape == (16,)
    assert session.logits.argmax() == toy.following(prompt[-1])
    assert session.sample() == toy.following(prompt[-1])


def test_decode_goes_on(session: Session, toy) -> None:
    session.prefill([1, 2])
    for token in (9, 4, 15):
        session.decode(token)
        assert session.sample() == toy.following(token)
    assert text(session) == [1, 2, 9, 4, 15]


def test_generate_follows_the_model(session: Session, toy) -> None:
    expected = [toy.following(2)]
    for _ in range(5):
        expected.append(toy.following(expected[-1]))
    assert list(session.generate([1, 2], 6)) == expected
    assert text(session) == [1, 2, *expected[:-1]]


def test_generate_stops(session: Session, toy) -> None:
    first = toy.following(2)
    assert list(session.generate([2], 9, stop={toy.following(first)})) == [
        first,
        toy.following(first),
    ]
    session.reset()
    assert list(session.generate([2], 0)) == []
    session.reset()
    assert len(list(session.generate([2] * 30, 100))) == 3
    assert session.position == session.context


def test_sampling_reaches_the_kernel(session: Session, toy) -> None:
    session.prefill([3])
    likeliest = toy.following(3)
    assert [session.sample(HOT) for _ in range(3)] == [(likeliest + 5 + i) % 16 for i in range(3)]
    session.reset()
    session.prefill([3])
    assert session.sample(HOT) == (likeliest + 5) % 16
    assert session.executor.view("sample_f32", np.float32).tolist() == [1.0, 1.0]


def test_a_cache_with_codes_rewinds_as_far_as_its_ring(session: Session) -> None:
    plan = session.executor.plan
    extra = {"kv": "kv4(16)", "kv_room": 128}
    session.executor.plan = replace(plan, config=replace(plan.config, extra=extra))
    session.position = 300
    session.rewind(200)  # which sees tokens from 192 on as they are, of those from 172 on
    session.position = 300
    with pytest.raises(SessionError, match=r"to 170: 'kv4\(16\)' .*: 0, or 188 to 300"):
        session.rewind(170)
    session.rewind(0)


def test_a_state_of_the_whole_text_does_not_rewind(session: Session) -> None:
    plan = session.executor.plan
    session.executor.plan = replace(plan, config=replace(plan.config, extra={"state": True}))
    session.prefill([1, 2, 3])
    session.rewind(3)
    with pytest.raises(SessionError, match=r"cannot rewind to 2: .*accepted: 0 or 3"):
        session.rewind(2)
    session.rewind(0)


def test_rewind_and_reset(session: Session) -> None:
    session.prefill([1, 2, 3, 4])
    session.rewind(2)
    session.decode(7)
    assert text(session) == [1, 2, 7]
    with pytest.raises(SessionError, match=r"cannot rewind to 4 .accepted: 0 to 3"):
        session.rewind(4)
    session.reset()
    assert session.position == 0
    session.prefill([5])
    assert text(session) == [5]


def test_score_shows_every_row(session: Session, toy) -> None:
    prompt = [(5 * i) % 16 for i in range(19)]
    likeliest: list[int] = []

    def each(start: int, logits: np.ndarray) -> None:
        assert start == len(likeliest)
        likeliest.extend(logits.argmax(axis=1).tolist())

    session.score(prompt, each)
    assert likeliest == [toy.following(token) for token in prompt]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "no tokens to feed"),
        ([0] * 33, r"33 tokens after 0 do not fit the model's context .accepted: up to 32 more"),
        ([3, 16], r"token id 16 .accepted: 0 to 15"),
        ([-1], "token id -1"),
    ],
)
def test_tokens_that_cannot_be_fed(session: Session, ids: list[int], message: str) -> None:
    with pytest.raises(SessionError, match=message):
        session.prefill(ids)
    with pytest.raises(SessionError, match=message):
        session.generate(ids, 3)
    assert session.position == 0


def test_full_context(session: Session) -> None:
    session.prefill([0] * 32)
    with pytest.raises(SessionError, match=r"1 tokens after 32 do not fit.*accepted: up to 0 more"):
        session.decode(1)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"seed": -1}, {"temperature": float("nan")}],
)
def test_sampling_that_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(SessionError, match=f"{next(iter(wrong))} .*accepted"):
        Sampling(**wrong)


def test_profile_names_every_step(session: Session) -> None:
    session.prefill([1, 2])
    times = session.profile(("decode", "head_last"), 1)
    assert [(time.program, time.kernel) for time in times] == [
        ("decode", "store"),
        ("decode", "embed"),
        ("decode", "copy"),
        ("head_last", "last"),
    ]
    assert all(time.ticks >= 0 for time in times)
    assert session.position == 2


def test_number_of_threads(directory: Path) -> None:
    for threads in (-1, 5):
        with pytest.raises(PlanError, match=f"{threads} threads .accepted: 1 to 4"):
            Session.load(directory, threads)
    session = Session.load(directory)
    assert 1 <= session.executor.threads <= 4
    session.close()


def test_rows_out_of_range(session: Session) -> None:
    for n, pos in ((9, 0), (-1, 0), (1, 32), (1, -1), (8, 25)):
        with pytest.raises(PlanError, match=f"{n} rows at position {pos} "):
            session.executor.run(("prefill",), n, pos)
    with pytest.raises(PlanError, match=r"no program 'train' .accepted: prefill, decode"):
        session.executor.run(("train",), 1, 0)


def test_plan_without_what_a_session_needs(toy) -> None:
    library = load(toy.objects, EXTERNALS)
    weights = toy.weight("table").reshape(-1).view(np.uint8)
    without = replace(toy.plan, programs=toy.plan.programs[:-1])
    with pytest.raises(PlanError, match="no program 'sample'"):
        Session(Executor(without, library, weights))
    unscored = replace(
        toy.plan,
        buffers=tuple(b for b in toy.plan.buffers if b.name != "all_logits"),
        programs=tuple(p for p in toy.plan.programs if p.name != "head_all"),
    )
    with pytest.raises(SessionError, match="compiled without scoring"):
        Session(Executor(unscored, library, weights)).score([1], lambda start, logits: None)
    bigger = replace(toy.plan, config=replace(toy.plan.config, vocab=17))
    with pytest.raises(PlanError, match="no io buffer 'logits' of 68 bytes"):
        Session(Executor(bigger, library, weights))


def test_executor_checks_what_it_is_given(toy) -> None:
    library = load(toy.objects, EXTERNALS)
    with pytest.raises(PlanError, match=r"1023 bytes of weights .accepted: 1024"):
        Executor(toy.plan, library, np.zeros(1023, np.uint8))
    more = replace(toy.plan, kernels=(*toy.plan.kernels, Kernel("absent", (), "")))
    with pytest.raises(ObjectError, match="no function 'absent'"):
        Executor(more, library, np.zeros(1024, np.uint8))


def test_init_program_and_offsets(toy) -> None:
    """A program called init runs at the start; a reference may begin inside its buffer."""
    library = load(toy.objects, EXTERNALS)
    both = Buffer("both", 2 * 512, Kind.STATE)
    step = Step("copy", (BufferRef("raw"), BufferRef("both", 512)))
    start = Step("embed", tuple(BufferRef(name) for name in ("text", "table", "raw")))
    raw = replace(toy.plan.buffer_table["raw"], kind=Kind.IO)
    others = (buffer for buffer in toy.plan.buffers if buffer.name != "raw")
    plan = replace(
        toy.plan,
        buffers=(*others, raw, both),
        programs=(Program("init", (start,)), Program("move", (step,))),
    )
    table = toy.weight("table")
    executor = Executor(plan, library, table.reshape(-1).view(np.uint8), 2)
    assert executor.view("raw", np.float32)[:16].tolist() == table[0].tolist()
    executor.view("raw", np.float32)[:] = np.arange(128)
    executor.run(("move",), 8, 0)
    moved = executor.view("both", np.float32)
    assert moved.tolist() == [0.0] * 128 + list(range(128))
    executor.close()


def test_running_imports_no_compiler(directory: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from nybble.backends.cpu.session import Session
session = Session.load(Path({str(directory)!r}), 2)
print(list(session.generate([1], 3)))
print([name for name in ("torch", "mlir", "xdsl", "torch_mlir") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (b"[4, 13, 8]\n[]\n", b"")
