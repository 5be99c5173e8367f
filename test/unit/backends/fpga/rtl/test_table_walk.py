"""The order in which tables are built: it writes every entry, and the right sum."""

import numpy as np
import pytest

from nybble.backends.fpga.rtl.digits import Digits
from nybble.backends.fpga.rtl.table_walk import walk

CASES = [((0, 1), 4), ((0, 1), 1), ((-1, 1), 4), ((-1, 1), 2), ((-1, 0, 1), 3), ((-1, 0, 1), 1)]


@pytest.mark.parametrize(("values", "group"), CASES)
def test_the_walk_writes_the_sum_of_every_choice_of_digits(values, group):
    digits = Digits(values, (1,))
    activations = np.array([3, -50, 127, -128])[:group]
    table, total = {}, 10**6
    for step in walk(digits, group):
        part = activations[step.which] * (-1 if step.minus else 1)
        total = 0 if step.clear else total + part
        if step.write:
            assert step.address not in table
            table[step.address] = total
    assert sorted(table) == list(range(digits.radix**group))
    for address, found in table.items():
        chosen = [values[address // digits.radix**at % digits.radix] for at in range(group)]
        assert found == activations @ chosen


def test_one_step_an_entry_where_digits_are_bits():
    assert len(walk(Digits((0, 1), (1, 2)), 4)) == 16
