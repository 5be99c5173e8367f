"""The search for a peer's best settings."""

from nybble.tools.bench.tuning import FINALISTS, LOOKS, finalists

CHOICES = {"buffers": ("default", "plain"), "flash": (True, False), "batch": (512, 128)}
COST = {"default": 2, "plain": 1, True: 5, False: 3, 512: 1, 128: 4}


def cost(setting):
    """Seconds that add up over the dimensions."""
    return float(sum(COST[value] for value in setting.values()))


def test_each_dimension_at_its_best():
    found = finalists(CHOICES, cost)
    assert found[0] == {"buffers": "plain", "flash": False, "batch": 512}
    assert [cost(setting) for setting in found] == sorted(cost(setting) for setting in found)


def test_finalists_are_few_and_different():
    found = finalists(CHOICES, cost)
    assert len(found) == FINALISTS
    assert all(one not in found[:i] for i, one in enumerate(found))


def test_the_best_of_some_looks_counts_and_looks_take_turns():
    seen = []
    script = iter([9.0, 2.0, 1.0, 2.0, 9.0, 2.0])

    def look(setting):
        seen.append(setting["flash"])
        return next(script)

    assert finalists({"flash": (True, False)}, look)[0] == {"flash": True}
    assert seen == [True, False] * LOOKS


def test_a_single_choice_is_not_looked_at():
    seen = []
    found = finalists({"buffers": ("plain",), "flash": (True,)}, seen.append)
    assert found == [{"buffers": "plain", "flash": True}]
    assert seen == []
