"""Interleaved rounds and their statistics, without a clock."""

import pytest

from nybble.tools.bench.rounds import Rotation, Schedule, Timing, interleave, summarize, timed


def scripted(log, name, seconds):
    """A contestant that writes down its turn and takes the seconds of a list."""
    left = iter(seconds)

    def run():
        log.append(name)
        return next(left)

    return run


def test_summary_is_minimum_and_median():
    assert summarize([5.0, 1.0, 3.0]) == Timing(1.0, 3.0, 3)
    assert summarize([4.0, 2.0]).median == 3.0


def test_scaled_keeps_the_number_of_rounds():
    assert Timing(1.0, 2.0, 7).scaled(10.0) == Timing(10.0, 20.0, 7)


def test_warmups_do_not_count():
    timings = interleave({"a": scripted([], "a", [99, 2, 1])}, Schedule(2, warmups=1, settle=0))
    assert timings == {"a": Timing(1, 1.5, 2)}


def test_everybody_has_a_turn_in_each_round():
    log = []
    contestants = {name: scripted(log, name, [1.0] * 6) for name in "abcd"}
    interleave(contestants, Schedule(5, warmups=1, settle=0))
    turns = [log[i : i + 4] for i in range(0, len(log), 4)]
    assert len(turns) == 6
    assert all(sorted(turn) == list("abcd") for turn in turns)


@pytest.mark.parametrize(("seeds", "same"), [((3, 3), True), ((3, 4), False)])
def test_order_is_random_and_follows_the_seed(seeds, same):
    logs = []
    for seed in seeds:
        log = []
        contestants = {name: scripted(log, name, [1.0] * 8) for name in "abcde"}
        interleave(contestants, Schedule(8, warmups=0, seed=seed, settle=0))
        logs.append(log)
    assert (logs[0] == logs[1]) is same
    assert logs[0][:5] != logs[0][5:10]


def test_rotation_counts_products():
    assert Rotation(copies=3, repeats=4).products == 12


def test_timed_runs_the_action():
    ran = []
    assert timed(lambda: ran.append(1)) >= 0
    assert ran == [1]
