"""What kernels of every backend are built with: values, operations, loops and branches."""
