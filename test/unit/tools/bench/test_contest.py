"""Phases of a model, with made-up contestants."""

from pathlib import Path

import pytest

from nybble.tools.bench.contest import (
    Contest,
    Phase,
    external_entry,
    our_entry,
    peer_entries,
)
from nybble.tools.bench.machine import Cache, Host
from nybble.tools.bench.model import best_peers
from nybble.tools.bench.model_work import ModelWork
from nybble.tools.bench.options import ModelOptions
from nybble.tools.bench.peers.llama_bench import External
from nybble.tools.bench.rounds import Schedule

HOST = Host("cpu", 2, "v3", (Cache(3, 1 << 30, True),), "Linux", {})
WORK = ModelWork(1 << 20, 2 << 20, 1 << 18, 1 << 19)
KEYS = {
    "phase", "threads", "ours_tps", "peer", "peer_type", "peer_tps", "speedup", "roof_fraction",
}  # fmt: skip


class Runner:
    """Takes `per_token` seconds for a token and writes down what it was fed."""

    def __init__(self, per_token):
        self.per_token, self.fed, self.closed = per_token, [], False

    def prefill(self, ids):
        self.fed.append(("prefill", len(ids)))
        return self.per_token * len(ids)

    def decode(self, ids, start):
        self.fed.append(("decode", start, list(ids)))
        return self.per_token * len(ids)

    def close(self):
        self.closed = True


class Model:
    """A peer's model that is fastest with flash off."""

    def choices(self, prompt):
        return {"flash": (True, False)}

    def __init__(self):
        self.runners = []

    def runner(self, threads, context, setting):
        self.runners.append(Runner(0.04 if setting["flash"] else 0.02))
        return self.runners[-1]


@pytest.fixture
def contest():
    options = ModelOptions(
        "m", Path(), prompt_tokens=8, decode_tokens=4, depths=(6,), schedule=Schedule(2, settle=0)
    )
    return Contest(HOST, options, WORK, list(range(100)))


def test_prefill_row(contest):
    ours, model, phase = Runner(0.01), Model(), Phase("prefill", 1)
    entries = [our_entry(ours), *peer_entries("p", "q4_0", model, phase, contest)]
    (row,) = contest.rows(phase, entries)
    assert row.keys() >= KEYS
    assert (row["ours_tps"], row["peer_tps"]) == pytest.approx((100, 50))
    assert row["speedup"] == pytest.approx(2)
    assert row["peer_setting"] == "flash False"
    assert row["roof_tps"] * row["roof_fraction"] == pytest.approx(row["ours_tps"])
    assert ours.fed == [("prefill", 8)] * 3
    assert ours.closed
    assert all(one.closed for one in model.runners)


def test_decode_starts_at_its_depth_and_goes_on_with_the_text(contest):
    ours = Runner(0.01)
    (row,) = contest.rows(Phase("decode", 2, 6), [our_entry(ours)])
    assert ours.fed[0] == ("prefill", 6)
    assert ours.fed[1] == ("decode", 6, [6, 7, 8, 9])
    assert (row["depth"], row["threads"], row["peer"]) == (6, 2, None)
    assert row["ours_tps"] == pytest.approx(100)


def test_without_ours_the_peers_are_still_measured(contest):
    phase = Phase("prefill", 1)
    (row,) = contest.rows(phase, peer_entries("p", "same", Model(), phase, contest))
    assert row["peer_tps"] == pytest.approx(50)
    assert (row["ours_tps"], row["speedup"], row["roof_fraction"]) == (None, None, None)


def test_what_tuning_found_serves_for_perplexity(contest):
    model = Model()
    assert contest.setting("p", "same", model) == {"flash": True}
    peer_entries("p", "same", model, Phase("prefill", 1), contest)
    assert contest.setting("p", "same", model) == {"flash": False}


def test_external_programs_get_the_job_of_the_phase(contest, monkeypatch):
    jobs = []
    monkeypatch.setattr(
        "nybble.tools.bench.contest.run_external", lambda _, job: jobs.append(job) or 0.5
    )
    for phase in (Phase("prefill", 2), Phase("decode", 1, 6)):
        entry = external_entry(External("x", "/x"), "same", Path("f"), phase, contest)
        (row,) = contest.rows(phase, [entry])
        assert row["peer_tps"] in (16, 8)
    assert (jobs[0].prompt, jobs[0].decode, jobs[0].threads) == (8, 0, 2)
    assert (jobs[-1].prompt, jobs[-1].decode, jobs[-1].depth) == (0, 4, 6)


def peer_row(name, tps, perplexity):
    """The fields that decide which peer is best."""
    head = {"phase": "decode", "depth": 0, "threads": 1, "peer": name}
    return head | {"peer_tps": tps, "peer_perplexity": perplexity}


def test_the_fastest_right_answer_is_the_anchor():
    rows = [peer_row("wrong", 900, 90.9), peer_row("right", 200, 15.5), peer_row("slow", 100, 12)]
    assert best_peers(rows, {"ours": 12.1}) == [rows[1]]


def test_an_unknown_perplexity_is_not_held_against_a_peer():
    rows = [peer_row("program", 300, None), peer_row("right", 200, 12)]
    assert best_peers(rows, {}) == [rows[0]]


def test_work_of_a_model():
    assert WORK.decode().operations == 2 * (WORK.layer_weights + WORK.head_weights)
    assert WORK.prefill(8).operations == 2 * (8 * WORK.layer_weights + WORK.head_weights)
    assert WORK.prefill(8).bytes == WORK.bytes == (1 << 20) + (1 << 18)
