"""What a vendor tool needs beside the C++ of a kernel: a script, a host program, channels.

None of it is run here, where no vendor tool is; each file says so.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from nybble.backends.fpga.hls.emit import argument_memories, emit, render
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.kernel import KernelOp

FILES = ("run_hls.tcl", "host.cpp", "connectivity.cfg")
PARTS = {
    "u280": "xcu280-fsvh2892-2L-e",
    "u55c": "xcu55c-fsvh2892-2L-e",
    "vhk158": "xcvh1582-vsva3697-2MP-e-S",
    "zcu104": "xczu7ev-ffvc1156-2-e",
    "kv260": "xck26-sfvc784-2LV-c",
    "v80": "xcv80-lsva4737-2MHP-e-S",
}
"""Device -> the part of it, as the vendor's tools name it."""


def project(kernels: Sequence[KernelOp], device: Target) -> dict[str, str]:
    """File name -> text of all that belongs to kernels; NybbleError for a device without a part."""
    if device.clock is None or device.name not in PARTS:
        raise NybbleError(f"no part is known of '{device.name}'", accepted=", ".join(PARTS))
    context = {
        "kernels": list(described(kernels, device)),
        "part": PARTS[device.name],
        "period": f"{1e9 / device.clock.value:.3f}",
    }
    found = {name: render(name, context) for name in FILES}
    for kernel in kernels:
        found |= emit(kernel)
    return found


def described(kernels: Sequence[KernelOp], device: Target) -> Iterator[dict[str, Any]]:
    """Name and memories of each kernel, the channels of which follow one another."""
    place = count()
    for kernel in kernels:
        memories = [
            {
                **one,
                "bytes": one["words"] * one["bits"] // 8,
                "channel": channel(device, next(place)),
            }
            for one in argument_memories(kernel)
        ]
        yield {"name": kernel.sym_name.data, "memories": memories}


def channel(device: Target, index: int) -> str:
    """A memory channel for a kernel's memory, in turn."""
    main = device.main
    channels = int(main.channels.value) if main.channels is not None else 1
    return f"{'HBM' if main.name == 'hbm' else 'DDR'}[{index % channels}]"
