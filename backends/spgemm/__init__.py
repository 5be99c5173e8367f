"""The SpGEMM accelerator: programs for harts, emitted as RISC-V, run on simulators, and timed."""
