"""Text from tokens as they come, whole characters only."""

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"
_LONGEST_CHARACTER = 4  # bytes of UTF-8, and so the most tokens that one character can span
_MAX_WAITING = 64


class Detokenizer:
    """Turns ids pushed one at a time into text; the pieces add up to the text of all the ids.

    `decode` maps ids to text. A token may end inside a character: the replacement characters that
    stand for such an end, up to three, are held back until the next tokens settle them. Decoders
    with byte tokens (SentencePiece) also garble the finished characters just before such an end for
    as long as it is open; nothing is given in the meantime.

    Only a window of the last tokens is decoded: those given last, which the text of the next ones
    may depend on, and those still waiting.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._reset()

    def push(self, token: int) -> str:
        """The text that `token` completes, possibly empty."""
        self._window.append(token)
        waiting = len(self._window) - self._settled
        text = self._decode(self._window)
        stable = text if waiting > _MAX_WAITING else _without_open_end(text)
        if not stable.startswith(self._given) and waiting <= _LONGEST_CHARACTER:
            return ""
        piece = stable[len(self._given) :]
        self._given = stable
        if (piece and stable == text) or waiting > _MAX_WAITING:
            self._settle()
        return piece

    def finish(self) -> str:
        """What is still held back; the next push starts a new text."""
        piece = self._decode(self._window)[len(self._given) :]
        self._reset()
        return piece

    def _reset(self) -> None:
        self._window: list[int] = []
        self._settled = 0  # tokens at the window's start whose text was given
        self._given = ""  # the part of the window's text that was given

    def _settle(self) -> None:
        self._window = self._window[self._settled :]
        self._settled = len(self._window)
        self._given = self._decode(self._window)


def _without_open_end(text: str) -> str:
    closed = len(text.rstrip(_REPLACEMENT))
    return text[: max(closed, len(text) - _LONGEST_CHARACTER + 1)]
