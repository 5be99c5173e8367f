"""nybble frontend."""
