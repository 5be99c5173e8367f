"""nybble tools."""
