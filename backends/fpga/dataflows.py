"""The dataflows of FPGAs, and the questions that passes ask of them.

A refusal is what making the kernel's own design raises, or that the device has too little of
something for it, so that it cannot promise what the lowering then rejects.
"""

from dataclasses import dataclass
from functools import lru_cache

from nybble.backends.fpga.analysis import Analysis, analyse, check_fits, shortages
from nybble.backends.fpga.design import Design, designs
from nybble.backends.fpga.elements import BIPOLAR_MODES, DATAFLOWS
from nybble.backends.fpga.elements import MODE as MODE
from nybble.backends.fpga.network import network
from nybble.costmodel.targets.reader import TARGETS as DEVICES
from nybble.costmodel.targets.reader import find_target
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.mpgemm.arrays import ArrayProductOp
from nybble.passes.targets import Product, Verdict

USUAL = "u280"
CHANNELS = (1, 2, 4)
"""Memories that weights are read from."""


@dataclass(frozen=True)
class FpgaTarget:
    """FPGAs, as passes ask for them; see `passes.targets.Target`."""

    name: str = "fpga"

    @property
    def modes(self) -> tuple[str, ...]:
        """See `Target`."""
        return (MODE, *BIPOLAR_MODES)

    def verdicts(self, product: Product) -> tuple[Verdict, ...]:
        """See `Target`: cycles of one kernel times the share of the device that it takes.

        That is what a product takes of a device full of such kernels, which is what counts where
        one kernel leaves room for others.
        """
        device = find_device(product.isa or USUAL)
        return tuple(self._verdict(name, product, device) for name in DATAFLOWS)

    def _verdict(self, name: str, product: Product, device: str) -> Verdict:
        layout = ArrayProductOp.WEIGHT_LAYOUT
        try:
            made, found = best_design(name, product, device)
        except NybbleError as error:
            accepted = f" (accepted: {error.accepted})" if error.accepted else ""
            return Verdict(name, layout, refusal=error.message + accepted)
        return Verdict(name, layout, cycles=found.cycles * found.share(made.target))

    def sketch(self, product: Product, dataflow: str) -> None:
        """See `Target`: nothing was measured here."""

    def choices(self, kernel: KernelOp, isa: str, threads: int) -> None:
        """See `Target`: schedules have nothing to choose yet."""
        return


def devices() -> tuple[str, ...]:
    """The targets that say how many of each resource they have."""
    return tuple(name for name in DEVICES if find_target(name).resources)


def channels_of(target: Target) -> tuple[int, ...]:
    """How many memories weights may be read from, so that others are left for other kernels."""
    known = target.main.channels
    return tuple(count for count in CHANNELS if known and 4 * count <= known.value) or (1,)


def find_device(name: str) -> str:
    """A device's name; raises UnknownNameError for what is no FPGA."""
    if name not in devices():
        raise UnknownNameError(f"unknown FPGA '{name[:40]}'", accepted=", ".join(devices()))
    return name


def checked_design(name: str, product: Product, device: str, has_bias: bool = False) -> Design:
    """The design of a product, which fits; NybbleError where there is none."""
    return best_design(name, product, device, has_bias)[0]


@lru_cache(maxsize=256)
def best_design(
    name: str, product: Product, device: str, has_bias: bool = False
) -> tuple[Design, Analysis]:
    """The design of a product that takes least of a device full of its like, and fits.

    Raises NybbleError where there is none.
    """
    target = find_target(device)
    made = [
        (one, analyse(network("k", one)))
        for channels in channels_of(target)
        for one in designs(name, product, device, channels, has_bias)
    ]
    fitting = [one for one in made if not shortages(one[1], target)]
    best, found = min(fitting or made, key=lambda one: one[1].cycles * one[1].share(target))
    check_fits(found, target)
    return best, found


FPGA = FpgaTarget()
