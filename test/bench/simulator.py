"""How fast the PTX simulator is: thread instructions a second on nybble's own kernels.

Run as `python test/bench/simulator.py`. Everything is checked and counted, as in tests.
"""

import sys
import time

import numpy as np

from nybble.backends.gpu.image import Access, KernelImage
from nybble.backends.gpu.products import compile_product
from nybble.backends.gpu.sim.arguments import Argument
from nybble.backends.gpu.sim.simulate import Options, simulate

CASES = [("w4g128", 1024, 4096, 1), ("w4g128", 1024, 4096, 16), ("w2g128", 1024, 4096, 16)]
ROUNDS = 3


def argument(image: KernelImage, index: int, random: np.random.Generator) -> Argument:
    """Something to run on: random bytes whose exponents are small, zeros, or 0."""
    one = image.parameters[index]
    if one.access is Access.VALUE:
        return 0
    size = -(-one.bytes // 16) * 16
    if one.access is Access.READ:
        return random.integers(0, 0x3C, size).astype(np.uint8)
    return np.zeros(size, np.uint8)


def main() -> None:
    """Print a line for each case."""
    random = np.random.default_rng(0)
    for name, rows, columns, tokens in CASES:
        image = compile_product(name, rows, columns, tokens, "sm_90a").image
        best, instructions = float("inf"), 0
        for _ in range(ROUNDS):
            values = [argument(image, i, random) for i in range(len(image.parameters))]
            start = time.perf_counter()
            report = simulate(image, values, options=Options(strict=False))
            best = min(best, time.perf_counter() - start)
            instructions = report.instructions
        speed = instructions / best / 1e6
        what = f"{name} [{rows}, {columns}], {tokens} tokens: {instructions} in {best:.2f} s"
        sys.stdout.write(f"{what}, {speed:.1f} million a second\n")


if __name__ == "__main__":
    main()
