"""Our own integer dot product of one 8-bit digit as a peer: what another dataflow gains over it."""

from nybble.dialects.errors import NybbleError
from nybble.tools.bench.data import Sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.ours_kernel import OurKernel
from nybble.tools.bench.peers.api import KernelRunner, Note
from nybble.tools.bench.peers.optional import KernelsOnly
from nybble.tools.bench.rounds import Rotation

DATAFLOW = "int_dot"


class IntDot(KernelsOnly):
    """The peer "int_dot"; see nybble.tools.bench.peers.api."""

    system = DATAFLOW

    def kernels(
        self, sample: Sample, threads: int, rotation: Rotation, note: Note
    ) -> dict[str, KernelRunner]:
        """One variant, "i8-only"; UnavailableError for a format that it does not multiply."""
        mode = "i8-only"
        try:
            return {mode: OurKernel(sample, threads, rotation, mode, DATAFLOW)}
        except NybbleError as reason:
            raise UnavailableError(reason.message) from reason
