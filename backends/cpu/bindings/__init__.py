"""From scheduled kernel regions to the generated kernels that implement them."""
