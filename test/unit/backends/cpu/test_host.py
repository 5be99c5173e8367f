"""Memory is aligned and zero, and absurd sizes are refused."""

import numpy as np
import pytest

from nybble.backends.cpu import host
from nybble.backends.cpu.machine import cpu_flags
from nybble.dialects.errors import NybbleError


@pytest.mark.parametrize("size", [0, 1, 63, 4096, host.HUGE_FROM, host.HUGE_FROM + 12345])
@pytest.mark.parametrize("sparse", [False, True])
def test_memory_is_aligned_and_zero(size: int, sparse: bool) -> None:
    memory = host.allocate(size, sparse=sparse)
    assert (memory.dtype, memory.shape) == (np.uint8, (size,))
    big = size >= host.HUGE_FROM
    assert memory.ctypes.data % (host.HUGE_PAGE if big else host.ALIGNMENT) == 0
    assert not memory.any()
    memory[:] = 1


@pytest.mark.parametrize(("sparse", "most", "big"), [(True, 1, 0), (True, 2, 1), (False, 1, 1)])
def test_what_may_stay_untouched_has_huge_pages_up_to_a_part_of_the_memory(
    monkeypatch, sparse, most, big
):
    """Regions are as big as asked for and aligned to huge pages, or to the last byte."""
    asked = []
    monkeypatch.setattr(host, "memory_size", lambda: most * host.HUGE_FROM * host.HUGE_SHARE // 2)
    monkeypatch.setattr(
        host.mmap, "mmap", lambda _, size, flags: asked.append(size) or bytearray(size)
    )
    monkeypatch.delattr(host.mmap, "MADV_HUGEPAGE", raising=False)
    host.allocate(host.HUGE_FROM, sparse=sparse)
    assert asked == [host.HUGE_FROM + (host.HUGE_PAGE if big else host.ALIGNMENT)]


@pytest.mark.parametrize("size", [1 << 60, 1 << 80])
def test_more_memory_than_there_is(size: int) -> None:
    with pytest.raises(NybbleError, match=f"{size} bytes of memory are not to be had"):
        host.allocate(size)


def test_threads_and_tiles() -> None:
    assert host.thread_count() >= 1
    assert host.request_amx() in (False, "amx_tile" in cpu_flags())
