"""Functions of operators as one kernel each, small, with shapes that kernels go wrong at."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from xdsl.dialects.builtin import Float16Type, IndexType

from nybble.backends.fpga.compose import build, compose
from nybble.backends.fpga.csim.build import Case
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.pipeline import build_pipeline, run_passes

PASSES = (
    "select-dataflow{{target=fpga activations={} reasons=false}},assign-layout,"
    "fuse-kernels{{target=fpga isa=u280 reasons=false}},chain-kernels"
)


@dataclass(frozen=True)
class Launch:
    """The operators of a function. lanes: of a word, 0 for as many as cost least."""

    text: str
    name: str = "k"
    device: str = "u280"
    lanes: int = 0
    activations: str = "i8-token"

    @cached_property
    def module(self):
        module = parse_module(make_context(), self.text, self.name)
        run_passes(make_context(), module, build_pipeline(PASSES.format(self.activations)))
        return module

    @cached_property
    def kernel(self):
        (found,) = (one for one in self.module.walk() if isinstance(one, KernelOp))
        return found

    @cached_property
    def network(self):
        if self.lanes:
            return build(self.name, self.kernel, self.device, self.lanes)
        return compose(self.name, self.kernel, self.device)

    def values(self, random, position=0, scale=1.0):
        return [value(one.type, random, position, scale) for one in self.kernel.inputs]

    def reference(self, values):
        """What the references of the processes give."""
        return self.network.results(self.network.kernel.run(*self.network.memories(values)))

    def meaning(self, values):
        """What the operators' own references give."""
        names = self.module.body.block.first_op.body.block
        whole = [values[self.kernel.inputs.index(one)] for one in names.args]
        given = Interpreter(self.module).call("f", *whole)
        found = dict(zip(names.last_op.operands, given, strict=True))
        return tuple(found[one] for one in self.kernel.outputs)

    def case(self, values):
        memories = self.network.memories(values)
        return Case(self.name, self.network.read_memories(memories))


def value(type_, random, position, scale):
    if isinstance(type_, IndexType):
        return position
    if isinstance(type_, LowBitTensorType):
        dense = random.standard_normal((type_.rows, type_.cols))
        return type_.number_format.quantize(dense.astype(np.float32))
    made = random.standard_normal(type_.get_shape()) * scale
    return made.astype(np.float16 if isinstance(type_.element_type, Float16Type) else np.float32)


def norm(rows, columns, length, offset=""):
    x, g = f"tensor<{rows}x{columns}xf32>", f"tensor<{length}xf32>"
    return f"""func.func @f(%x: {x}, %g: {g}) -> {x} {{
  %r = fused.rms_norm %x, %g eps 1.0e-05 {offset} : {x}, {g} -> {x}
  func.return %r : {x}
}}"""


def gate(rows, columns, kind):
    x = f"tensor<{rows}x{columns}xf32>"
    return f"""func.func @f(%g: {x}, %u: {x}) -> {x} {{
  %r = fused.glu "{kind}" %g, %u : {x}
  func.return %r : {x}
}}"""


def softmax(rows, columns):
    x = f"tensor<{rows}x{columns}xf32>"
    return f"""func.func @f(%x: {x}) -> {x} {{
  %r = fused.softmax %x : {x}
  func.return %r : {x}
}}"""


def turn(rows, heads, dim, context=6):
    """A rotation and an append."""
    x, half = f"tensor<{rows}x{heads * dim}xf32>", f"tensor<{context}x{dim // 2}xf32>"
    return f"""func.func @f(%x: {x}, %c: {half}, %s: {half}, %p: index) -> {x} {{
  %r = fused.rope %x, %c, %s at %p : {x}, {half} -> {x}
  func.return %r : {x}
}}"""


def append(heads, dim, context, element="f16"):
    x, cache = f"tensor<1x{heads * dim}xf32>", f"tensor<{heads}x{context}x{dim}x{element}>"
    return f"""func.func @f(%x: {x}, %k: {cache}, %p: index) -> {cache} {{
  %r = sparse_attn.append_kv %x into %k at %p : {x} into {cache} -> {cache}
  func.return %r : {cache}
}}"""


def attention(heads, group, dim, context, element="f16", mask="causal"):
    q, cache = f"tensor<1x{heads * group * dim}xf32>", f"tensor<{heads}x{context}x{dim}x{element}>"
    return f"""func.func @f(%q: {q}, %k: {cache}, %v: {cache}, %p: index) -> {q} {{
  %r = sparse_attn.attention %q, %k, %v at %p mask <"{mask}"> scale 0.25
    : {q}, {cache}, {cache} -> {q}
  func.return %r : {q}
}}"""


def residual(columns):
    """A row that waits for its own norm."""
    x, g = f"tensor<1x{columns}xf32>", f"tensor<{columns}xf32>"
    return f"""func.func @f(%x: {x}, %g: {g}) -> {x} {{
  %n = fused.rms_norm %x, %g eps 1.0e-05 : {x}, {g} -> {x}
  %r = arith.addf %x, %n : {x}
  func.return %r : {x}
}}"""


def projection(columns, spec):
    """A residual of a product with a bias, of a row that was normed."""
    x, g = f"tensor<1x{columns}xf32>", f"tensor<{columns}xf32>"
    w = f'!lowbit.tensor<{columns}x{columns}, "{spec}">'
    return f"""func.func @f(%x: {x}, %g: {g}, %w: {w}, %b: {g}) -> {x} {{
  %n = fused.rms_norm %x, %g eps 1.0e-05 : {x}, {g} -> {x}
  %p = mpgemm.matmul %n, %w bias %b : {g} : {x}, {w} -> {x}
  %r = arith.addf %x, %p : {x}
  func.return %r : {x}
}}"""


def block(h=16, m=24, heads=1, group=2, dim=8, context=6):
    """The decode step of a decoder's layer."""
    q, k = heads * group * dim, heads * dim
    row, cache = "tensor<1x{}xf32>".format, f"tensor<{heads}x{context}x{dim}xf16>"
    half, vector = f"tensor<{context}x{dim // 2}xf32>", f"tensor<{h}xf32>"

    def weight(rows, cols, spec="w2"):
        return f'!lowbit.tensor<{rows}x{cols}, "{spec}">'

    def product(name, x, w, rows, cols, spec="w2"):
        types = f"{row(cols)}, {weight(rows, cols, spec)} -> {row(rows)}"
        return f"  %{name} = mpgemm.matmul %{x}, %{w} : {types}\n"

    return (
        f"func.func @f(%x: {row(h)}, %n1: {vector}, %n2: {vector}, %wq: {weight(q, h)}, "
        f"%wk: {weight(k, h)}, %wv: {weight(k, h)}, %wo: {weight(h, q)}, %wg: {weight(m, h)}, "
        f"%wu: {weight(m, h)}, %wd: {weight(h, m, 'w4')}, %c: {half}, %s: {half}, %k: {cache}, "
        f"%v: {cache}, %p: index) -> ({row(h)}, {cache}, {cache}) {{\n"
        f"  %a = fused.rms_norm %x, %n1 eps 1.0e-05 : {row(h)}, {vector} -> {row(h)}\n"
        + product("q0", "a", "wq", q, h)
        + product("k0", "a", "wk", k, h)
        + product("v0", "a", "wv", k, h)
        + f"  %q = fused.rope %q0, %c, %s at %p : {row(q)}, {half} -> {row(q)}\n"
        f"  %k1 = fused.rope %k0, %c, %s at %p : {row(k)}, {half} -> {row(k)}\n"
        f"  %ks = sparse_attn.append_kv %k1 into %k at %p : {row(k)} into {cache} -> {cache}\n"
        f"  %vs = sparse_attn.append_kv %v0 into %v at %p : {row(k)} into {cache} -> {cache}\n"
        '  %t = sparse_attn.attention %q, %ks, %vs at %p mask <"causal"> scale 0.35 : '
        f"{row(q)}, {cache}, {cache} -> {row(q)}\n"
        + product("o", "t", "wo", h, q)
        + f"  %r = arith.addf %x, %o : {row(h)}\n"
        f"  %b = fused.rms_norm %r, %n2 eps 1.0e-05 : {row(h)}, {vector} -> {row(h)}\n"
        + product("g", "b", "wg", m, h)
        + product("u", "b", "wu", m, h)
        + f'  %z = fused.glu "silu" %g, %u : {row(m)}\n'
        + product("d", "z", "wd", h, m, "w4")
        + f"  %y = arith.addf %r, %d : {row(h)}\n"
        f"  func.return %y, %ks, %vs : {row(h)}, {cache}, {cache}\n}}"
    )
