"""Honest measurement: ours and its peers in one process, in turn, with probes of the machine."""
