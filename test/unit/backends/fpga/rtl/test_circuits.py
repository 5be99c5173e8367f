"""Circuits in Verilator against numpy: small ones here, the rest by `nybble verify`."""

import numpy as np
import pytest

from nybble.backends.fpga.csim.build import Case, build
from nybble.backends.fpga.design import Design as KernelDesign
from nybble.backends.fpga.elements import ELEMENTS
from nybble.backends.fpga.network import network
from nybble.backends.fpga.packing import pack, pack_activation
from nybble.backends.fpga.rtl import circt, simulate
from nybble.backends.fpga.rtl.circt import system_verilog
from nybble.backends.fpga.rtl.designs import Design, beats_of, random_sparse
from nybble.backends.fpga.rtl.emit import Module
from nybble.backends.fpga.rtl.encoding import Product
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.simulate import program, run
from nybble.backends.fpga.rtl.sparse_encoding import sparse_beats
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.tool import run_tool
from nybble.dialects.fpga.attrs import TilingAttr
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.element import Ternary, Uniform

DENSE = Design("table", PeSpec(Uniform(2, 2), 5, lanes=2, rows=2, depth=2048))
TERNARY = Design("table", PeSpec(Ternary(), group=3, lanes=2, rows=1, depth=16))
SPARSE = Design("sparse", SparseSpec(16, rows=2))


def product(spec, shape, random):
    return Product(spec.draw(shape, random), random.integers(-128, 128, shape[1]))


def ran(design, products, cache, pauses=()):
    """What an element gives for products, as [n, 1] each, and the cycles."""
    executable = program(design.verilog, design.top, cache)
    beats = [beats_of(design.kind, design.spec, one) for one in products]
    found = run(executable, beats, design.y_words, pauses)
    sums = [design.sums(y.y, len(x.weights))[:, 0] for x, y in zip(products, found, strict=True)]
    return sums, [one.cycles / beat.ideal for one, beat in zip(found, beats, strict=True)]


@pytest.mark.parametrize("design", [DENSE, TERNARY], ids=["two bits", "ternary"])
def test_tables_give_exact_sums_whatever_the_shape_and_the_pauses(design, simulators):
    random = np.random.default_rng(0)
    spec = design.spec
    shapes = [(1, 1), (7, 33), (13, 5 * spec.k), (16, spec.k + 1)]
    products = [product(spec, shape, random) for shape in shapes]
    products.append(Product(products[2].weights, np.full(5 * spec.k, -128)))
    products.append(Product(products[2].weights, np.zeros(5 * spec.k, int)))
    for pauses in ([0] * 6, [128, 20, 50, 90, 5, 200]):
        sums, _ = ran(design, products, simulators, pauses)
        for found, one in zip(sums, products, strict=True):
            assert np.array_equal(found, one.reference())
    other = Product(products[2].weights[:, ::-1], products[2].activations)
    [found], _ = ran(design, [other], simulators)
    assert not np.array_equal(found, products[2].reference())


def test_tables_are_built_behind_the_weights(simulators):
    random = np.random.default_rng(1)
    _, [factor] = ran(DENSE, [product(DENSE.spec, (4096, 8 * DENSE.spec.k), random)], simulators)
    assert 1 <= factor <= 1.01


def test_an_emitted_kernel_of_the_same_array_takes_as_long(simulators, tools, tmp_path):
    rows, cols = 512, 1600
    description, element = formats.get("w2"), ELEMENTS["lut_array"](formats.get("w2"))
    spec = DENSE.spec
    assert (description.element, element.width) == (spec.element, spec.group)
    tiling = TilingAttr.get(
        tokens=1, rows=rows, cols=cols, group=cols, lanes=spec.lanes, width=spec.group,
        high=spec.rows, wide=1,
    )  # fmt: skip
    kernel = KernelDesign("w2", element, tiling, 1, 1, "u280")
    weight = description.quantize(np.ones((rows, cols), np.float32))
    memories = (pack_activation(kernel, np.ones((1, cols), np.float32)),)
    case = Case("k", (*memories, *pack(kernel, weight).memories))
    [counted] = build([network("k", kernel)], tmp_path, counts=True).run([case])
    one = product(spec, (rows, cols), np.random.default_rng(5))
    executable = program(DENSE.verilog, DENSE.top, simulators)
    [found] = run(executable, [beats_of("table", spec, one)], DENSE.y_words)
    assert counted.cycles == pytest.approx(found.loading + found.cycles, rel=0.02)


def test_sparse_sums_are_exact_and_take_what_is_kept(simulators):
    random = np.random.default_rng(3)
    cases, expected = [], []
    for kept in (2, 4, 8, 16):
        weights = random_sparse((8, 1024), 16, kept, random)
        activations = random.choice([-128, 127, 0, 5], (1024, 2))
        cases.append(sparse_beats(SPARSE.spec, weights, activations))
        expected.append(weights.astype(np.int64) @ activations)
    executable = program(SPARSE.verilog, SPARSE.top, simulators)
    found = run(executable, cases, SPARSE.y_words)
    for one, sums in zip(found, expected, strict=True):
        assert np.array_equal(SPARSE.sums(one.y, 8), sums)
    cycles = np.array([one.cycles for one in found])
    assert np.all(np.abs(cycles / cycles[-1] / (np.array([2, 4, 8, 16]) / 16) - 1) < 0.05)
    for one, sums in zip(run(executable, cases, SPARSE.y_words, [99] * 4), expected, strict=True):
        assert np.array_equal(SPARSE.sums(one.y, 8), sums)


def test_what_the_tools_say_is_told(simulators, monkeypatch):
    module = Module("m")
    module.output("y", module.forward(0, 1))  # a name that nothing defines
    with pytest.raises(RtlError, match=r"CIRCT rejects the circuit: .*undeclared SSA value"):
        system_verilog([module])
    with pytest.raises(RtlError, match="Verilator cannot build 'm': "):
        program("module n(); endmodule", "m", simulators)
    monkeypatch.setattr(simulate, "which", lambda _name: None)
    with pytest.raises(RtlError, match="Verilator is not installed"):
        program("module m(); endmodule", "m", simulators)
    monkeypatch.setattr(circt, "find_spec", lambda _name: None)
    with pytest.raises(RtlError, match="CIRCT is not installed"):
        system_verilog([])


def test_a_simulation_that_does_not_end_is_told(simulators):
    executable = program(TERNARY.verilog, TERNARY.top, simulators)
    beats = beats_of("table", TERNARY.spec, product(TERNARY.spec, (4, 6), np.random.default_rng(0)))
    with pytest.raises(RtlError, match="case 0 does not end: 4 rows"):
        run(executable, [beats.__class__(**{**vars(beats), "results": 5})], TERNARY.y_words)
    with pytest.raises(RtlError, match="the simulation ended with 3"):
        simulate.output_of(executable, b"")


def test_a_program_that_hangs_is_told():
    with pytest.raises(RtlError, match="it did not end within 0 seconds"):
        run_tool("it", ["sleep", "9"], seconds=0.01)
