"""Room in a buffer of a region, given out and taken back while a stream is made."""

from dataclasses import dataclass, field

from nybble.costmodel.targets.target import ResourceError


@dataclass
class Room:
    """First fit in `size` units. peak: the most that was in use."""

    name: str
    size: int
    target: str
    _taken: dict[int, int] = field(default_factory=dict[int, int])
    peak: int = 0

    def take(self, size: int) -> int:
        """The first place of that size; ResourceError says how much is missing."""
        place = 0
        for start in sorted(self._taken):
            if start - place >= size:
                break
            place = max(place, start + self._taken[start])
        if place + size > self.size:
            raise ResourceError(
                f"the buffer '{self.name}' of {self.target} is {place + size - self.size} blocks "
                f"of 16 too small",
                accepted=f"what fits {self.size} blocks: fewer tokens or a smaller model",
            )
        self._taken[place] = size
        self.peak = max(self.peak, place + size)
        return place

    def free(self, place: int) -> None:
        """Give a place back."""
        del self._taken[place]


@dataclass
class Ring:
    """Places one after another in a buffer that is filled around and around."""

    size: int
    target: str
    cursor: int = 0

    def take(self, size: int) -> int:
        """The next place, from the start where the rest is too small."""
        if size > self.size // 2:
            raise ResourceError(
                f"the buffer 'weights' of {self.target} is {size - self.size // 2} lines of 16 "
                "bytes too small for a head's keys, twice",
                accepted=f"a context whose keys take up to {self.size // 2} lines",
            )
        place = self.cursor if self.cursor + size <= self.size else 0
        self.cursor = place + size
        return place
