"""The error about a format of a cache that cannot be."""

from nybble.dialects.errors import NybbleError


class KvError(NybbleError):
    """A format of a cache that is spelled wrong, does not fit the cache, or is not computed yet."""
