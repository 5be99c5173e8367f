"""What compiled products are made of, and what has none."""

import re
from functools import cache

import numpy as np
import pytest

from nybble.backends.gpu.arch import ARCHS, find_arch
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.image import Access
from nybble.backends.gpu.kernels.matmul.spec import Tuning
from nybble.backends.gpu.products import (
    Activations,
    Product,
    ProductError,
    compile_product,
    product_spec,
)
from nybble.backends.gpu.ptxas import assemble, disassemble, opcodes, tool
from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.dialects.lowbit import formats

SIDE = 4096
HOT = [
    ("w4g128", 1, "f16"), ("w4g128", 16, "f16"), ("w4g128", 64, "f16"), ("w2g128", 1, "f16"),
    ("w1g128", 1, "f16"), ("mxfp4", 8, "f16"), ("w4g128", 64, "i8"), ("w2g128", 16, "i8"),
    ("w4g256", 32, "b4"), ("w1g256", 8, "b1"), ("spqr3", 1, "f16"), ("spqr3", 64, "f16"),
    ("df11", 1, "bf16"), ("df11", 64, "bf16"),
]  # fmt: skip
MATRIX = {
    "f16": "HMMA.16816.F32",
    "bf16": "HMMA.16816.F32.BF16",
    "i8": "IMMA.16832.U8.S8",
    "b1": "BMMA.168256.AND.POPC",
    "b4": "BMMA.168128.AND.POPC",
}


def has(name: str) -> bool:
    """Whether NVIDIA's program of that name is there."""
    try:
        tool(name)
    except GpuError:
        return False
    return True


def loop(ptx: str, product: str) -> list[str]:
    """The instructions of the blocks that multiply: those of one record."""
    blocks = [block for block in re.split(r"^\$L\w+:", ptx, flags=re.M) if product in block]
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [one for one in lines if one and one[0] not in "./"]


@cache
def of_warpgroups(name: str) -> Product:
    """A product of many tokens."""
    return compile_product(name, SIDE, SIDE, 1024, warpgroups=True)


@pytest.mark.parametrize(("name", "most"), [("w4g128", 19.5), ("w2g128", 19.5)])
def test_instructions_per_product_of_warpgroups(name: str, most: float):
    body = loop(of_warpgroups(name).image.ptx, "wgmma.mma")
    products = sum(one.count("wgmma.mma_async") for one in body)
    assert len(body) / products < most


@pytest.mark.parametrize("name", ["w4g128", "w2g128"])
def test_ptxas_keeps_products_of_warpgroups_in_registers(name: str):
    if not has("ptxas"):
        pytest.skip("no ptxas")
    made = assemble(of_warpgroups(name).image.ptx, "sm_90a")
    assert (made.spills, made.stack, made.serialized) == (0, 0, False)
    if has("nvdisasm"):
        found = opcodes(disassemble(made.cubin))
        for wanted in ("HGMMA.64", "LDGSTS.E.BYPASS.128", "UTMALDG.2D"):
            assert any(one.startswith(wanted) for one in found)
        stored = [one for one in found if one.startswith("STS")]
        assert not stored, "no weight goes through shared memory decoded"


@pytest.mark.parametrize(
    ("name", "tokens", "mode", "most"),
    [
        ("w4g128", 1, "f16", 11.5), ("w4g128", 16, "f16", 8), ("w4g128", 64, "f16", 4),
        ("w2g128", 1, "f16", 11.5), ("w4g128", 16, "i8", 9.5), ("w4g128", 64, "i8", 5.5),
        ("w2g128", 16, "i8", 9), ("w4g128", 32, "b4", 5), ("w2g256", 16, "b2", 13),
        ("df11", 1, "bf16", 24), ("df11", 16, "bf16", 12.5), ("df11", 64, "bf16", 4.5),
    ],
)  # fmt: skip
def test_instructions_per_product(name: str, tokens: int, mode: Activations, most: float):
    body = loop(compile_product(name, SIDE, SIDE, tokens, activations=mode).image.ptx, "mma.")
    products = sum(one.startswith("mma.") for one in body)
    assert len(body) / products < most
    reads = [one for one in body if re.match(r"ld.(global|shared)", one)]
    wide = [one for one in reads if ".v4" in one]
    # beside scales, pairs of what the tokens of integers have for a group
    numbers = 1 if mode in ("f16", "bf16") else 1 + 2 * -(-tokens // 8)
    assert len(reads) - len(wide) <= numbers, "16 bytes at once, but for scales"


@pytest.mark.parametrize(("name", "tokens", "mode"), HOT)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120a"])
def test_ptxas_keeps_all_in_registers(name: str, tokens: int, mode: Activations, arch: str):
    if not has("ptxas"):
        pytest.skip("no ptxas")
    if mode[0] == "b" and "b1" not in find_arch(arch).native:
        pytest.skip("it multiplies no bits")
    ptx = compile_product(name, SIDE, SIDE, tokens, arch, mode).image.ptx
    made = assemble(ptx, arch)
    assert made.spills == 0
    assert made.stack == 0
    if arch == "sm_90a" and has("nvdisasm"):
        found = opcodes(disassemble(made.cubin))
        wanted = MATRIX[mode]
        assert any(name.startswith(wanted) for name in found)
        assert any(name.startswith("LDGSTS.E.BYPASS.128") for name in found)


def test_the_parameters_and_the_launch():
    product = compile_product("w2g128", 64, 512, 3, activations="bf16", output="f32")
    image = product.image
    assert [(p.name, p.dtype, p.access) for p in image.parameters] == [
        ("x", "bf16", Access.READ), ("w", "u8", Access.READ), ("y", "f32", Access.WRITE),
        ("sums", "f32", Access.WRITE), ("counters", "i32", Access.UPDATE),
    ]  # fmt: skip
    assert image.parameter("w").bytes == product.weight_bytes
    assert image.zeroed == ("counters",)
    assert image.block == (128, 1, 1)
    assert image.shared <= ARCHS["sm_90a"].shared


@pytest.mark.parametrize("arch", ARCHS)
def test_shared_memory_of_every_architecture_is_enough(arch: str):
    for name in ("w4g128", "w3g128", "w7g128", "w8g128"):
        for tokens in (1, 64):
            spec = product_spec(name, SIDE, SIDE, tokens, arch)
            assert spec.shared <= find_arch(arch).shared
            assert spec.tuning.stages >= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("w8g128", 64, 256, 1, "sm_90a", "bf16"), "codes of 8 bits with activations bf16"),
        (("w4g8", 64, 256, 1), "groups of 8 columns"),
        (("w4g96", 64, 192, 1), "groups of 96 columns"),
        (("w4g32", 64, 96, 1), "96 columns"),
        (("w4g128", 64, 256, 0), "a product of 0 tokens"),
        (("df11", 64, 256, 1, "sm_90a", "b2"), "with activations b2 of weights with outliers"),
        (("f16", 64, 256, 1), "no code per weight"),
        (("df11", 64, 256, 1), "bf16 weights with activations f16"),
        (("spqr3", 64, 256, 1, "sm_90a", "i8"), "with activations i8 of weights with outliers"),
    ],
)
def test_what_has_no_kernel_is_refused(arguments: tuple, message: str):
    with pytest.raises(NybbleError, match=message):
        product_spec(*arguments)


def test_unknown_architectures_are_named():
    with pytest.raises(UnknownNameError, match="unknown GPU architecture 'sm_70'"):
        compile_product("w4g128", 64, 256, 1, "sm_70")


def test_only_weights_that_fit_are_packed():
    product = compile_product("w4g64", 16, 64, 1)
    values = np.ones((16, 128), np.float32)
    with pytest.raises(ProductError, match="a weight of 'w4g64'"):
        product.pack(formats.get("w4g64").quantize(values))
    small = compile_product("fp8_e4m3", 16, 64, 1)
    weight = formats.get("fp8_e4m3").quantize(values[:, :64])
    assert weight.codes is not None
    weight.codes[0, 0] = 0x7F
    with pytest.raises(ProductError, match="which is NaN"):
        small.pack(weight)


def test_tuning_is_kept_where_it_fits():
    spec = product_spec("w4g128", 64, 512, 1, tuning=Tuning(warps=4, stages=3))
    assert (spec.tuning.warps, spec.tuning.stages) == (4, 3)
