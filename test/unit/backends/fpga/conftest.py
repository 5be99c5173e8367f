"""Kernels of small odd shapes, compiled once for all tests of C simulation."""

from dataclasses import dataclass

import numpy as np
import pytest

from nybble.backends.fpga.csim.build import Case
from nybble.backends.fpga.csim.tools import ToolError, compiler, headers
from nybble.backends.fpga.dataflows import MODE, checked_design
from nybble.backends.fpga.design import Design
from nybble.backends.fpga.network import network
from nybble.backends.fpga.packing import pack, pack_activation, unpack_results
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.lowbit import formats
from nybble.dialects.numpy_ref.quantize import bipolar_values, dequantize_rows, quantize_rows
from nybble.passes.targets import Product


@dataclass(frozen=True)
class Made:
    """A design and its kernel."""

    design: Design
    kernel: KernelOp

    @property
    def shape(self):
        tiling = self.design.tiling
        return tiling.rows.data, tiling.cols.data, tiling.tokens.data

    def weight(self, values):
        return self.design.description.quantize(values.astype(np.float32))

    def case(self, x, weight, bias=None):
        memories = (pack_activation(self.design, x), *pack(self.design, weight, bias).memories)
        return Case(self.kernel.sym_name.data, memories)

    def reference(self, case):
        """What the references of the processes give, bytes and f32 [tokens, rows]."""
        type_ = self.kernel.outputs[0].type
        empty = np.zeros((type_.words.data, type_.bits.data // 8), np.uint8)
        (found,) = self.kernel.run(*case.memories, empty)
        return found, unpack_results(self.design, found)


def make(dataflow, spec, rows, cols, tokens, name="k", device="u280", has_bias=False, mode=MODE):
    """A kernel; the shapes of a test name what they are."""
    product = Product(formats.get(spec), rows, cols, tokens, mode, device)
    design = checked_design(dataflow, product, device, has_bias)
    return Made(design, network(name, design))


def product(x, weight, bias=None, planes=0):
    """The product of rounded activations in f64, and the sum of its terms' magnitudes."""
    rounded = quantize_rows(x, x.shape[1])
    values = dequantize_rows(rounded.q, rounded.s)
    if planes:
        values = bipolar_values(x, planes)
    values = values.astype(np.float64)
    dense = weight.dequantize().astype(np.float64)
    added = np.zeros(len(dense)) if bias is None else bias
    terms = np.abs(dense)
    if weight.zero is not None:
        group = dense.shape[1] // weight.zero.shape[1]
        terms = terms + 2 * np.repeat(np.abs(weight.zero), group, axis=1)
    return values @ dense.T + added, np.abs(values) @ terms.T + np.abs(added)


BITMOD = "bitmod4[5.0,-5.0,8.0,-8.0]:g=64x2:s=u4*f16"


def need_tools():
    """Skip a test where C simulation has no compiler or no headers."""
    try:
        compiler(), headers()
    except ToolError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tools():
    need_tools()
