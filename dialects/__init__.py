"""nybble dialects."""
