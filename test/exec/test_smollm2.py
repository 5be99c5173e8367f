"""SmolLM2 from its packaged GGUF file to machine code, against transformers on the same weights."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from nybble.backends.cpu.session import Session
from nybble.frontend.checkpoint import CheckpointError, open_checkpoint
from nybble.frontend.text import read_tokenizer
from nybble.tools.bench.text import sample_text
from nybble.tools.verbs.eval import perplexity

for package in ("torch", "torch_mlir", "transformers"):
    pytest.importorskip(package, reason="needs nybble[torch]")
pytestmark = pytest.mark.slow

MODEL = "smollm2"
CONTEXT = 512
GREEDY = 32
TEXT_TOKENS = 4096
QUESTION = "What is the capital of France?"
PROMPTS = (
    QUESTION,
    "Write a haiku about the sea.",
    "Explain photosynthesis to a child.",
    "List three prime numbers.",
    "def fibonacci(n):",
    "Translate 'good morning' to Spanish.",
    "Why is the sky blue?",
    "Tell me a joke about cats.",
    "What is 12 times 7?",
    "Summarize the plot of Hamlet in one sentence.",
)


@pytest.fixture(scope="module")
def checkpoint():
    try:
        return open_checkpoint(MODEL)
    except CheckpointError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def artifact(checkpoint, compile_checkpoint):
    """A function from a mode of activations to the compiled model."""
    return cache(lambda mode: compile_checkpoint(checkpoint, activations=mode, context=CONTEXT))


@pytest.fixture(scope="module")
def session(artifact):
    """A function from a mode of activations to a session on two threads."""
    return cache(lambda mode: Session.load(artifact(mode), 2))


@pytest.fixture(scope="module")
def tokenizer(artifact):
    return read_tokenizer(artifact("f32"))


@pytest.fixture(scope="module")
def original(checkpoint, reference):
    return reference(checkpoint)


def chat(tokenizer, prompt):
    text = tokenizer.chat([{"role": "user", "content": prompt}])
    return tokenizer.encode(text, add_special_tokens=False)


def all_logits(session, ids):
    """The logits of every position of a text that is fed at once."""
    session.reset()
    found = np.empty((len(ids), session.vocab), np.float32)

    def keep(start, logits):
        found[start : start + len(logits)] = logits

    session.score(ids, keep)
    return found


def relative(found, wanted):
    """The relative L2 error of every row."""
    return np.linalg.norm(found - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_are_those_of_transformers(prompt, session, tokenizer, original, logits_of):
    """In one pass over prompt and answer, transformers' likeliest tokens must be the answer's."""
    exact = session("f32")
    ids = chat(tokenizer, prompt)
    exact.reset()
    answer = list(exact.generate(ids, GREEDY))
    text = [*ids, *answer]
    wanted = logits_of(original, text)
    assert wanted.argmax(axis=-1)[len(ids) - 1 : -1].tolist() == answer
    # The same logits, once with the whole text as a prompt and once token by token.
    assert relative(all_logits(exact, text), wanted).max() < 1e-3
    exact.reset()
    exact.prefill(ids)
    for position, token in enumerate(answer[:4], len(ids)):
        exact.decode(token)
        assert relative(exact.logits, wanted[position]) < 1e-3


@pytest.mark.parametrize("mode", ["f32", "i8"])
def test_the_capital_of_france(mode, session, tokenizer):
    model = session(mode)
    model.reset()
    answer = list(model.generate(chat(tokenizer, QUESTION), GREEDY, stop=tokenizer.eos_ids))
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] in tokenizer.eos_ids


@pytest.mark.parametrize("mode", ["f32", "i8"])
def test_threads_do_not_change_a_logit(mode, artifact, session, tokenizer):
    ids = chat(tokenizer, QUESTION)
    alone = Session.load(artifact(mode), 1)
    np.testing.assert_array_equal(all_logits(alone, ids), all_logits(session(mode), ids))
    alone.close()


def test_perplexity_of_8_bit_activations(session, tokenizer):
    ids = tokenizer.encode(sample_text(), add_special_tokens=False)[:TEXT_TOKENS]
    assert len(ids) == TEXT_TOKENS
    exact, rounded = (perplexity(session(mode), ids, CONTEXT) for mode in ("f32", "i8"))
    assert exact.tokens == rounded.tokens == TEXT_TOKENS // CONTEXT * (CONTEXT // 2 - 1)
    assert rounded.perplexity == pytest.approx(exact.perplexity, rel=0.01)
    assert exact.perplexity < 20


# ---- the command, in processes of its own


def command(*arguments):
    return [str(Path(sys.executable).with_name("nybble")), *arguments]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of commands that share an empty cache."""
    folder = tmp_path_factory.mktemp("nybble")
    return os.environ | {"NYBBLE_CACHE": str(folder / "cache"), "TMPDIR": str(folder)}


GENERATE = command("generate", MODEL, "-p", QUESTION, "--max-tokens", "32", "--json", "-")


def test_two_processes_compile_once(checkpoint, environment):
    started = [
        subprocess.Popen(GENERATE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    reports = [json.loads(out) for out, _ in ended]
    assert [err for _, err in ended] == [b"", b""], "nothing but the report on a pipe"
    assert all("Paris" in report["text"] for report in reports)
    assert all(report["prefill_tps"] > 0 and report["decode_tps"] > 0 for report in reports)
    assert max(report["peak_rss_mb"] for report in reports) < 600
    models = Path(environment["NYBBLE_CACHE"], "models")
    assert len(list(models.glob("*/manifest.json"))) == 1
    assert left_over(environment) == []


def test_a_killed_compilation_leaves_nothing_in_use(checkpoint, environment):
    """Killed while it imports, then while it writes: the next run starts over and succeeds."""
    again = [*GENERATE, "--context", "256"]
    models = Path(environment["NYBBLE_CACHE"], "models")
    before = set(models.glob("*/manifest.json"))
    importing = (Path(environment["TMPDIR"]), "nybble-import-*")
    for folder, sign in (importing, (models, ".*")):
        process = subprocess.Popen(
            again, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_for_new(folder, sign, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert set(models.glob("*/manifest.json")) == before
    ran = subprocess.run(again, env=environment, capture_output=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Paris" in json.loads(ran.stdout)["text"]
    assert left_over(environment) == []


def wait_for_new(folder, sign, process):
    """Until the process has made something new in `folder` whose name matches `sign`."""
    known = set(folder.glob(sign))
    while set(folder.glob(sign)) <= known:
        assert process.poll() is None, "it ended before that"
        time.sleep(0.005)


def left_over(environment):
    """Drafts of artifacts, and folders of imports that nobody waits for."""
    models = Path(environment["NYBBLE_CACHE"], "models")
    return [*models.glob(".*"), *Path(environment["TMPDIR"]).glob("nybble-import-*")]
