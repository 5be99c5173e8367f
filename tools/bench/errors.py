"""What a measurement can be asked wrongly, and what it lacks on this machine."""

from nybble.dialects.errors import NybbleError


class BenchError(NybbleError):
    """An option of a benchmark that cannot be, or an external program that does not do its part."""


class UnavailableError(NybbleError):
    """A peer, or one of its settings, that cannot run here; the report says so and goes on."""
