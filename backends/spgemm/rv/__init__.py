"""RISC-V code of programs: lowering, the runtime in assembly, and the ELF file."""
