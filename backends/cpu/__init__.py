"""nybble backends/cpu."""
