"""The cycle model of the machine, driven by traces of programs."""
