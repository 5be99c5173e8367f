"""The PyTorch side of the frontend: needs `nybble[torch]`; import its modules, not this package."""
