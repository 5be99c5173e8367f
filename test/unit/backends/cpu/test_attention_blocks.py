"""The blocks of keys that a compilation gives attention, by level, mask and cache."""

import pytest

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.bindings.scheduled import Scheduled
from nybble.backends.cpu.bindings.table import bind
from nybble.backends.cpu.kernels.attention import Attention
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.pipeline import build_pipeline, run_passes

STAGES = "assign-layout,fuse-kernels,schedule-kernels"


def block_of(isa: str, mask: str, dtype: str, rows: int = 1) -> int:
    """Keys of a block unless a schedule says otherwise."""
    q, kv = f"tensor<{rows}x1024xf32>", f"tensor<2x256x128x{dtype}>"
    text = f"""func.func @f(%q: {q}, %k: {kv}, %v: {kv}, %p: index) -> {q} {{
  %r = sparse_attn.attention %q, %k, %v at %p mask <"{mask}"> scale 0.1 : {q}, {kv}, {kv} -> {q}
  func.return %r : {q}
}}"""
    context = make_context()
    module = parse_module(context, text, "<test>")
    run_passes(context, module, build_pipeline(STAGES))
    (kernel,) = [one for one in module.walk() if isinstance(one, KernelOp)]
    found = bind(kernel, levels.get(isa), 1).kernel
    assert isinstance(found, Scheduled)
    assert isinstance(found.kernel, Attention)
    return found.kernel.key_block


@pytest.mark.parametrize(
    ("isa", "mask", "dtype", "rows", "block"),
    [
        ("avx512-vnni", "causal", "f32", 1, 32),
        ("avx512-vnni", "causal", "f16", 1, 64),
        ("avx512-vnni", "window(100)", "f32", 1, 32),
        ("avx512-vnni", "stride(64,4)", "f32", 1, 64),
        ("avx512-vnni", "causal", "f32", 40, 64),
        ("x86-64-v3", "causal", "f32", 1, 64),
    ],
)
def test_blocks_of_a_band_are_half_of_the_first_cache(isa, mask, dtype, rows, block):
    assert block_of(isa, mask, dtype, rows) == block
