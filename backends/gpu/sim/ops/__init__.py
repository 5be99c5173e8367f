"""What each PTX instruction does: one table of opcodes for each family of instructions."""
