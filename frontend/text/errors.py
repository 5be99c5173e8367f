"""The error of text that cannot be encoded, decoded or rendered."""


class TextError(ValueError):
    """What is wrong with a text, a token id or a chat template, the value, and what is accepted."""
