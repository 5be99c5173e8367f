"""Targets: last-mile lowering, code generation, runtime."""
