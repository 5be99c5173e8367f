"""The search for a peer's best setting."""

from nybble.tools.bench.tuning import LOOKS, tune

CHOICES = {"buffers": ("default", "plain"), "flash": (True, False), "batch": (512, 128)}


def test_each_dimension_at_its_best():
    cost = {"default": 2, "plain": 1, True: 5, False: 3, 512: 1, 128: 4}
    best = tune(CHOICES, lambda setting: sum(cost[value] for value in setting.values()))
    assert best == {"buffers": "plain", "flash": False, "batch": 512}


def test_the_best_of_some_looks_counts():
    looks = iter([9.0, 1.0, 2.0, 2.0])
    assert tune({"flash": (True, False)}, lambda _: next(looks)) == {"flash": True}


def test_a_single_choice_is_not_looked_at():
    seen = []
    tune({"buffers": ("plain",), "flash": (True, False)}, lambda s: seen.append(s) or 1.0)
    assert len(seen) == 2 * LOOKS
