"""Others' products of low-bit weights: cuBLAS in f16, torch's int4, Humming, GemLite, Triton.

Each is given the dense weight and quantizes it by itself; so its error counts the quantization of
its own scheme, and says only that it multiplies the right thing.
"""

import copy
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from gpu_parts.cases import bits_of
from gpu_parts.timing import Contender, copies_for

if TYPE_CHECKING:
    from gpu_parts.products import ProductCase

GROUP = 128
TUNED = ("w4g128", "w2g128")
"""The formats with which all peers are compared."""


def products(case: "ProductCase") -> dict[str, Callable[["ProductCase"], Contender]]:
    """The peers that could do the case, by name."""
    bits = bits_of(case.case["spec"]["format"])
    found: dict[str, Callable[[ProductCase], Contender]] = {"cublas f16": cublas}
    if bits is None or case.dtype != torch.float16:
        return found
    if find_spec("humming"):
        found[f"humming w{bits}"] = lambda one: humming(one, bits)
    if case.case["spec"]["format"] not in TUNED:
        return found
    if bits == 4:
        found["torch int4"] = torch_int4
        found["triton w4a16"] = triton_int4
    if find_spec("gemlite") and bits in (1, 2, 4, 8) and case.tokens in (1, 16):
        found[f"gemlite w{bits}"] = lambda one: gemlite(one, bits)
    return found


def _contender(
    case: "ProductCase",
    name: str,
    size: int,
    run: Callable[[int], None],
    copies: int,
    y: list[torch.Tensor],
) -> Contender:
    return Contender(name, run, lambda: y[0], copies, size + case.small, case.flops)


def cublas(case: "ProductCase") -> Contender:
    """torch.mm of the dense weight."""
    first = case.dense.to(case.dtype)
    copies = [first, *(first.clone() for _ in range(copies_for(first.nbytes, case.l2) - 1))]
    y = [torch.empty(case.tokens, case.rows, dtype=case.dtype, device="cuda")]

    def run(i: int) -> None:
        torch.mm(case.x, copies[i].T, out=y[0])

    return _contender(case, "cublas f16", first.nbytes, run, len(copies), y)


def _grouped(dense: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes u8 [rows, cols] around 2**(bits - 1), and scales [rows, groups], symmetric."""
    parts = dense.view(dense.shape[0], -1, GROUP)
    scale = parts.abs().amax(-1, keepdim=True) / 2 ** (bits - 1)
    middle = 2 ** (bits - 1)
    codes = (parts / scale).round().add(middle).clamp(0, 2 * middle - 1).to(torch.uint8)
    return codes.view_as(dense), scale.squeeze(-1)


def torch_int4(case: "ProductCase") -> Contender:
    """torch's own W4A16 in bf16, groups of 128."""
    codes, scale = _grouped(case.dense, 4)
    pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
    scales = (
        torch.stack([scale, torch.zeros_like(scale)], -1).transpose(0, 1).contiguous().bfloat16()
    )
    size = packed.nbytes + scales.nbytes
    copies = [packed.clone() for _ in range(copies_for(size, case.l2))]
    x, y = case.x.bfloat16(), [torch.empty(0)]

    def run(i: int) -> None:
        y[0] = torch.ops.aten._weight_int4pack_mm(x, copies[i], GROUP, scales)

    return _contender(case, "torch int4", size, run, len(copies), y)


def humming_layer(dense: torch.Tensor, bits: int) -> Any:
    """A Humming layer of the weight, groups of 128, its kernels not yet compiled."""
    from humming.layer import HummingLayer

    rows, cols = dense.shape
    layer = HummingLayer(
        shape_n=rows,
        shape_k=cols,
        weight_config={"dtype": f"uint{bits}", "group_size": GROUP},
        torch_dtype=torch.float16,
    ).cuda()
    layer.load_from_unquantized(dense.half())
    layer.transform()
    return layer


def humming(case: "ProductCase", bits: int) -> Contender:
    """Humming with its default tuning."""
    layer = humming_layer(case.dense, bits)
    size = sum(one.nbytes for one in layer.parameters())
    copies = [layer, *(copy.deepcopy(layer) for _ in range(copies_for(size, case.l2) - 1))]
    y = [torch.empty(0)]

    def run(i: int) -> None:
        y[0] = copies[i](case.x)

    return _contender(case, f"humming w{bits}", size, run, len(copies), y)


def gemlite(case: "ProductCase", bits: int) -> Contender:
    """GemLite with its stored configurations, groups of 128."""
    from gemlite import DType, GemLiteLinear

    codes, scale = _grouped(case.dense, bits)
    layer = GemLiteLinear(
        bits,
        group_size=GROUP,
        in_features=case.cols,
        out_features=case.rows,
        input_dtype=DType.FP16,
        output_dtype=DType.FP16,
    )
    zeros = torch.full_like(scale, 2 ** (bits - 1))
    layer.pack(codes, scale.half(), zeros.half(), None)
    size = layer.W_q.nbytes + scale.numel() * 4
    copies = [layer, *(copy.deepcopy(layer) for _ in range(copies_for(size, case.l2) - 1))]
    y = [torch.empty(0)]

    def run(i: int) -> None:
        y[0] = copies[i](case.x)

    return _contender(case, f"gemlite w{bits}", size, run, len(copies), y)


def triton_int4(case: "ProductCase") -> Contender:
    """A plain W4A16 kernel in Triton: the stand-in where no other peer imports."""
    from gpu_parts.triton_peer import multiply, pack

    codes, scale = _grouped(case.dense, 4)
    packed, scales = pack(codes), scale.T.contiguous().half()
    size = packed.nbytes + scales.nbytes
    copies = [packed.clone() for _ in range(copies_for(size, case.l2))]
    y = [torch.empty(case.tokens, case.rows, dtype=torch.float16, device="cuda")]

    def run(i: int) -> None:
        multiply(case.x, copies[i], scales, y[0], GROUP)

    return _contender(case, "triton w4a16", size, run, len(copies), y)


def warm(spec: dict[str, Any], tokens: list[int]) -> str:
    """Lets Humming compile for a format and these numbers of tokens; it keeps the results."""
    bits = bits_of(spec["format"])
    if bits is None or not find_spec("humming"):
        return "nothing to compile"
    os.environ.setdefault("HUMMING_CACHE_DIR", "/tmp/nybble-bench-humming")
    layer = humming_layer(torch.randn(spec["rows"], spec["cols"], device="cuda"), bits)
    for count in sorted(set(tokens)):
        layer(torch.randn(count, spec["cols"], device="cuda", dtype=torch.float16))
    torch.cuda.synchronize()
    return f"humming w{bits}: {len(set(tokens))} sizes"
