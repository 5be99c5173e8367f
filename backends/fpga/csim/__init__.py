"""C simulation: emitted kernels, compiled by g++ and run on many cases."""
