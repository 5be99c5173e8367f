"""The settings under which a peer is fastest, so that it is compared at its best.

One dimension after the other is tried, the others being held; the best value of each is kept. Looks
at the values of a dimension take turns, so that a disturbance does not hit one of them alone. The
figures of a report are not these looks: the settings that came out best, FINALISTS of them, run in
turn with ours, and the fastest there counts.
"""

from collections.abc import Callable, Mapping, Sequence

LOOKS = 3
FINALISTS = 3

Setting = dict[str, object]
"""Dimension -> value."""

Choices = Mapping[str, Sequence[object]]
"""Dimension -> values to choose from, the first being where a search starts."""


def finalists(choices: Choices, look: Callable[[Setting], float]) -> list[Setting]:
    """The settings with the smallest looks among those on a greedy search's way, best first.

    look: seconds under a setting; it is taken LOOKS times and the smallest counts. A single
    setting is not looked at.
    """
    best: Setting = {name: values[0] for name, values in choices.items()}
    seconds: list[tuple[float, Setting]] = []
    for name, values in choices.items():
        if len(values) > 1:
            looked = _look_in_turn([best | {name: value} for value in values], look)
            best = min(looked, key=_first)[1]
            seconds += looked
    ordered = [setting for _, setting in sorted(seconds, key=_first)] or [best]
    return [one for i, one in enumerate(ordered) if one not in ordered[:i]][:FINALISTS]


def _look_in_turn(
    settings: Sequence[Setting], look: Callable[[Setting], float]
) -> list[tuple[float, Setting]]:
    turns = [[look(setting) for setting in settings] for _ in range(LOOKS)]
    return [(min(taken), setting) for *taken, setting in zip(*turns, settings, strict=True)]


def _first(pair: tuple[float, Setting]) -> float:
    return pair[0]
