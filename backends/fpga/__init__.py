"""The FPGA backend: HLS C++, RTL and an instruction stream."""
