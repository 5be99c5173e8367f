"""The parts of test/bench/gpu.py: cases, their build, their runs on a GPU, peers and tables."""
