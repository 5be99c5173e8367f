"""Commands: the only readers of arguments, environment, clock and terminal."""
