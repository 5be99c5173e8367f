"""How narrow the accesses of a kernel are, which says how fine its shadows must be."""

from collections.abc import Iterator

from nybble.backends.gpu.sim.ptx import Entry, Instruction
from nybble.backends.gpu.sim.types import is_type, scalar

_VECTORS = {"v2": 2, "v4": 4, "v8": 8}
_ASYNC = ("wgmma",)
WIDEST = 16


def shared_grain(entry: Entry) -> int:
    """Bytes of the narrowest access to shared memory, at most 16."""
    return min((size for space, size in _accesses(entry) if space != "global"), default=WIDEST)


def global_grain(entry: Entry) -> int:
    """Bytes of the narrowest access to global memory, at most 16."""
    return min((size for space, size in _accesses(entry) if space != "shared"), default=WIDEST)


def uses_async(entry: Entry) -> bool:
    """Whether a kernel starts what runs by itself: bulk copies or wgmma."""
    return any(
        one.opcode == "wgmma" or "bulk" in one.modifiers or "mbarrier" in one.modifiers
        for one in entry.instructions
    )


def _accesses(entry: Entry) -> Iterator[tuple[str, int]]:
    """The space ("" for generic addresses) and bytes of each access."""
    for one in entry.instructions:
        space = next(
            (
                name
                for modifier in one.modifiers
                if (name := modifier.split("::")[0])
                in ("global", "shared", "local", "param", "const")
            ),
            "",
        )
        if space in ("local", "param"):
            continue
        if one.opcode in ("ld", "ldu", "st", "atom", "red"):
            yield space, min(_size(one), WIDEST)
        elif one.opcode == "mbarrier":
            yield "shared", 8
        elif one.opcode == "cp" and "bulk" not in one.modifiers and len(one.operands) > 2:
            size = getattr(one.operands[2], "value", 4)
            yield "", int(size)


def _size(one: Instruction) -> int:
    types = [scalar(modifier) for modifier in one.modifiers if is_type(modifier)]
    count = next((n for name, n in _VECTORS.items() if name in one.modifiers), 1)
    return types[-1].bytes * count if types else 1
