"""What measurements are of: the level of their code, which their model tells."""

import pytest

from nybble.backends.cpu.isa import BASELINE, LEVELS
from nybble.backends.cpu.machine import for_level
from nybble.costmodel.data.measurement import Stand
from nybble.tools.cost.learning import Measured, level_of, measured


@pytest.mark.parametrize("name", LEVELS)
def test_a_stand_tells_its_level(name):
    assert level_of(Stand(f"Some CPU @ 2.0 GHz {for_level(LEVELS[name])}", "")) == name


def test_a_stand_that_tells_none_is_of_the_baseline():
    assert level_of(Stand("zen 3", "")) == BASELINE.name


def test_features_are_of_the_level_that_was_measured():
    assert measured(None).target.levels == ("x86-64-v3",)
    own = Measured([], Stand(f"zen 4 {for_level(LEVELS['avx512-vbmi'])}", ""))
    assert (own.target.name, own.target.levels) == ("cpu-avx512", ("avx512-vbmi",))
