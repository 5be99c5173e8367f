"""nybble passes."""
