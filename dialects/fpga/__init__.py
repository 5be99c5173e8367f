"""The fpga dialect: a kernel as a network of processes between memory channels."""
