"""Products of low-bit weights and activations: a lowering per dataflow, for all formats."""
