"""nybble: an MLIR compiler stack for the operators of low-bit and sparse LLMs."""

__version__ = "0.1.0"
