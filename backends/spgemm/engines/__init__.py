"""The simulators that run programs."""
