"""nybble backends."""
