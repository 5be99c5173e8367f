"""The verbs of the `nybble` command, one module each with a click `command`."""
