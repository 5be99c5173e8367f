"""nybble bench: kernels and models beside other systems."""

from nybble.tools.bench.cli import bench as command

__all__ = ["command"]
