"""nybble costmodel."""
