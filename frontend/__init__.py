"""From PyTorch, GGUF and safetensors to IR, and the Python API."""
