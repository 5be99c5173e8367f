"""Tries a buffer type of ggml in a process of its own, since a bad build can take one down.

Known case: GCC 12 drops the stores of the AMX tile configuration (its header tells the compiler
that `_tile_loadconfig` reads 8 bytes of 64), so llama.cpp built by it dies of a general protection
fault at its first AMX product, https://github.com/ggml-org/llama.cpp/pull/26954.
"""

import subprocess
import sys
from functools import cache

import numpy as np
from gguf import GGMLQuantizationType, quants

from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.ggml_matmul import PLAIN, GgmlMatmul, Product
from nybble.tools.bench.rounds import timed

SECONDS = 60.0
ROWS, COLS = 128, 256
TOKENS = (1, 32)
TOLERANCE = 1e-3  # normalized mean square: the activations' rounding is far below, garbage above
REBUILD = "CMAKE_ARGS=-DCMAKE_CXX_FLAGS=-fno-dse pip install --no-binary :all: llama-cpp-python"


@cache
def fault(buffer: str) -> str | None:
    """Why weights in this buffer type cannot be used here, or None if they can."""
    if buffer == PLAIN:
        return None
    command = [sys.executable, "-m", "nybble.tools.bench.peers.trial", buffer]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"llama.cpp's {buffer} products do not end"
    if ended.returncode < 0:
        return f"llama.cpp's {buffer} products end the process; a build that may work: {REBUILD}"
    return f"llama.cpp's {buffer} products are wrong" if ended.returncode else None


def try_buffer(buffer: str) -> float:
    """The worst normalized mean square difference from plain memory, for TOKENS rows of x."""
    random = np.random.default_rng(0)
    dense = random.standard_normal((ROWS, COLS), np.float32)
    raw = quants.quantize(dense, GGMLQuantizationType.Q4_0)
    worst = 0.0
    for n in TOKENS:
        x = random.standard_normal((n, COLS), np.float32)
        results: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
        for kind in (PLAIN, buffer):
            product = GgmlMatmul(Product("q4_0", raw, x), kind)
            timed(product.seconds)
            results.append(product.result())
            product.close()
        expected, got = results
        worst = max(worst, float(((got - expected) ** 2).sum() / (expected**2).sum()))
    return worst


def main() -> int:
    """The exit code: 0 if the buffer type named by the only argument gives right results."""
    try:
        return int(try_buffer(sys.argv[1]) > TOLERANCE)
    except UnavailableError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
