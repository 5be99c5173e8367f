"""What a matmul spec refuses, how it is laid out, and that every level can be compiled for."""

from dataclasses import replace

import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.isa import LEVELS
from nybble.backends.cpu.kernels.matmul import (
    Codes,
    Dense,
    MatmulError,
    MatmulSpec,
    lower_matmul,
    matmul_buffers,
)
from nybble.backends.cpu.kernels.matmul.lower import takes_tiles
from nybble.backends.cpu.machine import for_level
from nybble.backends.cpu.tile_layout import LayoutError

Q4 = MatmulSpec(Codes(4, 32, 8), (64,), 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ()}, "needs rows, tokens and threads"),
        ({"tokens": 0}, "needs rows, tokens and threads"),
        ({"glu": "relu"}, "unknown gate 'relu'"),
        ({"glu": "silu"}, "gated output of parts"),
        ({"glu": "silu", "rows": (64, 32)}, "gated output of parts"),
        ({"glu": "silu", "rows": (64, 64), "residual": True}, "gated output of parts"),
        ({"activation_group": 48}, "activations in groups of 48, weights in groups of 32"),
        ({"activation_group": 4}, "activations in groups of 4 for codes of 4 bits"),
        ({"digits": 3}, "activations of 3 digits"),
        (
            {"weight": Codes(8, 512), "cols": 512, "activation_group": 512, "digits": 2},
            "2 digits in groups of 512 for codes of 8 bits",
        ),
        ({"weight": Dense("f32")}, "8-bit activations with float weights"),
    ],
)
def test_refused(change, message):
    with pytest.raises(MatmulError, match=message):
        replace(Q4, **change)


def test_refused_shape():
    with pytest.raises(LayoutError, match="no whole groups of 32"):
        replace(Q4, cols=80)


def test_buffers():
    spec = replace(Q4, rows=(64, 65), tokens=17, bias=True, threads=3)
    buffers = {buffer.name: buffer.size for buffer in matmul_buffers(spec)}
    assert list(buffers) == ["q", "s", "z", "w0", "w1", "b0", "b1", "y0", "y1", "scratch"]
    assert buffers["q"] == 32 * 64
    assert buffers["y1"] == 32 * 65
    assert buffers["w1"] == 2 * buffers["w0"]
    assert buffers["scratch"] % 3 == 0


def test_digits_of_activations():
    sizes = [
        {buffer.name: buffer.size for buffer in matmul_buffers(replace(Q4, digits=digits))}
        for digits in (1, 2)
    ]
    assert sizes[1]["q"] == 2 * sizes[0]["q"]
    assert {name for name in sizes[0] if sizes[0][name] != sizes[1][name]} == {"q"}


def test_one_token_needs_no_scratch():
    names = [buffer.name for buffer in matmul_buffers(replace(Q4, activations="f32"))]
    assert names == ["x", "w0", "y0"]


@pytest.mark.parametrize(
    ("change", "tiles"),
    [
        ({}, True),
        ({"tokens": 1}, False),
        ({"activations": "f32"}, False),
        ({"activations": "a8"}, False),
        ({"activations": "a8", "digits": 2}, False),
        ({"isa": LEVELS["avx512-vnni"]}, False),
        ({"weight": Codes(4, 48), "cols": 96, "activation_group": 48}, False),
        ({"weight": Codes(8, 4), "cols": 36, "activation_group": 4}, False),
    ],
)
def test_what_takes_tiles(change, tiles):
    spec = replace(Q4, tokens=2, isa=LEVELS["amx"], activations="bf16")
    assert takes_tiles(replace(spec, **change)) == tiles


@pytest.mark.parametrize("level", ["x86-64-v4", "aarch64-neon"])
def test_compiles_without_outside_symbols(level):
    isa = LEVELS[level]
    specs = [replace(Q4, isa=isa), replace(Q4, isa=isa, tokens=32, glu="silu", rows=(8, 8))]
    module = ModuleOp([lower_matmul(spec, f"k{i}") for i, spec in enumerate(specs)])
    assert compile_module(module, for_level(isa))
