"""Synthesizable C++ of fpga kernels, with what a vendor tool needs beside it."""
