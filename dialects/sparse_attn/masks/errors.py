"""The error about a mask that cannot be."""

from nybble.dialects.errors import NybbleError


class MaskError(NybbleError):
    """A mask that is spelled wrong, or that does not fit the attention it is for."""
