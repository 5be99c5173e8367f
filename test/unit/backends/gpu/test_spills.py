"""No product of warpgroups needs more registers than it has, whatever the format and the tokens."""

import pytest

from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.products import Activations, compile_product, product_spec
from nybble.backends.gpu.ptxas import assemble, tool
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit.formats.names import NAMED

SIDE, TOKENS = 4096, 1000
"""Tokens of several passes, not all of which are full."""
HARD: list[tuple[str, Activations]] = [
    # scales of more groups than registers hold, sums of groups, groups that end between boxes
    ("q2_k", "f16"), ("q3_k", "f16"), ("q6_k", "f16"), ("iq4_xs", "f16"), ("nvfp4_scaled", "f16"),
    ("w1g16z", "f16"), ("w3g16m", "f16"), ("q1_0", "bf16"),
]  # fmt: skip
WIDTHS = [f"w{bits}{group}{zero}" for bits in range(1, 9) for group in ("g16", "g32", "")
          for zero in ("", "z", "m")]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _assembler():
    try:
        tool("ptxas")
    except GpuError as error:
        pytest.skip(error.message)


def accepted(activations: Activations) -> list[str]:
    """Names of formats that warpgroups multiply, one of each kind of weights."""
    found: dict[object, str] = {}
    for name in (*NAMED, *WIDTHS):
        try:
            spec = product_spec(name, SIDE, SIDE, TOKENS, activations=activations, warpgroups=True)
        except NybbleError:
            continue
        found.setdefault((spec.layout, spec.kind), name)
    return list(found.values())


def check(name: str, activations: Activations, tokens: int = TOKENS) -> int:
    """Assemble a product, which must not spill; gives the tiles of tokens of a pass."""
    product = compile_product(
        name, SIDE, SIDE, tokens, activations=activations, warpgroups=True
    )  # fmt: skip
    made = assemble(product.image.ptx, "sm_90a")
    assert (made.spills, made.stack, made.serialized) == (0, 0, False), (name, tokens)
    return product.spec.token_tiles


@pytest.mark.parametrize(("name", "activations"), HARD)
def test_the_hardest_formats(name: str, activations: Activations):
    check(name, activations)


@pytest.mark.slow
@pytest.mark.parametrize("activations", ["f16", "bf16"])
def test_every_format(activations: Activations):
    names = accepted(activations)
    assert len(names) > 80
    for name in names:
        check(name, activations)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "activations", "most"),
    [
        ("w4g128", "f16", 16), ("w1g16z", "f16", 8), ("q6_k", "f16", 8), ("q2_k", "f16", 6),
        ("q3_k", "bf16", 4), ("w3g16m", "bf16", 3),
    ],
)  # fmt: skip
def test_every_number_of_tokens_of_a_pass(name: str, activations: Activations, most: int):
    found = [check(name, activations, max(16, 8 * tiles - 3)) for tiles in range(2, most + 1)]
    assert found == [*range(2, most + 1)]
    assert check(name, activations) == most
