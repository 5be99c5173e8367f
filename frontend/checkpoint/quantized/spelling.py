"""The spelling of a format out of what a configuration says."""

from nybble.frontend.checkpoint.fields import Fields

MAX_GROUP = 1 << 20


def uniform(bits: int, group: int | None, scale: str, zero: str | None) -> str:
    """Integers of `bits` bits, signed without a zero; zero: "int.uN" or "min.TYPE" or None."""
    kind = "i" if zero is None else "u"
    return spelled(f"{kind}{bits}", group, scale) + ("" if zero is None else f":z={zero}")


def spelled(element: str, group: int | None, scale: str) -> str:
    """An element with one scale per group; group: weights, None for a whole row."""
    return f"{element}:g={'row' if group is None else group}:s={scale}"


def checked_group(fields: Fields, key: str = "group_size") -> int | None:
    """Weights per scale as a configuration says them: None, a whole row, for -1."""
    if type(fields.get(key)) is int and fields.get(key) == -1:
        return None
    return fields.integer(key, 1, MAX_GROUP)
