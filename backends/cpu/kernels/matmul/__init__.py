"""Matrix products of packed weights with token activations."""

from nybble.backends.cpu.kernels.matmul.codes import Codes, Dense, Split
from nybble.backends.cpu.kernels.matmul.lower import lower_matmul, matmul_buffers
from nybble.backends.cpu.kernels.matmul.spec import MatmulError, MatmulSpec

__all__ = ["Codes", "Dense", "MatmulError", "MatmulSpec", "Split", "lower_matmul", "matmul_buffers"]
