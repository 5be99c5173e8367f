"""What a processing element cannot be, and what the tools behind it lack or reject."""

from nybble.dialects.errors import NybbleError


class RtlError(NybbleError):
    """A circuit that cannot be made as asked, or a tool that is missing or gave up."""
