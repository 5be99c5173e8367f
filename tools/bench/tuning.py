"""The settings under which a peer is fastest, so that it is compared at its best.

One dimension after the other is tried, the others being held; the best of each is kept. The
figures of a report are not these first looks: the winner runs again, in turn with ours.
"""

from collections.abc import Callable, Mapping, Sequence

LOOKS = 2

Setting = dict[str, object]
"""Dimension -> value."""

Choices = Mapping[str, Sequence[object]]
"""Dimension -> values to choose from, the first being where a search starts."""


def tune(choices: Choices, look: Callable[[Setting], float]) -> Setting:
    """The setting with the smallest `look`, found greedily.

    look: seconds under a setting; it is taken LOOKS times and the smaller counts.
    """
    setting: Setting = {name: values[0] for name, values in choices.items()}
    for name, values in choices.items():
        if len(values) == 1:
            continue
        seconds = {index: _least(look, setting | {name: v}) for index, v in enumerate(values)}
        setting[name] = values[min(seconds, key=seconds.__getitem__)]
    return setting


def _least(look: Callable[[Setting], float], setting: Setting) -> float:
    return min(look(setting) for _ in range(LOOKS))
