"""NVIDIA GPUs: kernels as PTX, what packs their weights, runs them, simulates and inspects them."""
