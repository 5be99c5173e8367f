"""The error of text that cannot be encoded, decoded or rendered."""

from nybble.dialects.errors import NybbleError


class TextError(NybbleError, ValueError):
    """What is wrong with a text, a token id or a chat template, the value, and what is accepted."""
