"""The error of a number format that does not exist, is illegal, or does not fit an array."""

from nybble.dialects.errors import NybbleError


class FormatError(NybbleError, ValueError):
    """A format or an array that its format rejects; says the value and what is accepted."""
