"""Number formats as data: `get("q4_1")` and everything that follows from one description."""

from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.format import Format, get, names
from nybble.dialects.lowbit.formats.rounding import Rounding
from nybble.dialects.lowbit.formats.weight import Outlying, TreeParts, Weight

__all__ = ["Format", "FormatError", "Outlying", "Rounding", "TreeParts", "Weight", "get", "names"]
