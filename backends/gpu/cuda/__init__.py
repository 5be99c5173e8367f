"""The second emitter: a kernel as CUDA C++, to read, and as an oracle for the PTX."""
