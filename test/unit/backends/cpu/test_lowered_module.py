"""A decoder layer end to end: its machine code against the interpreter of its operators."""

import numpy as np
import pytest
from xdsl.dialects.builtin import IndexType, ModuleOp
from xdsl.dialects.func import FuncOp

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.assemble import Assembler
from nybble.backends.cpu.codegen import compile_module, compile_modules
from nybble.backends.cpu.executor import Executor
from nybble.backends.cpu.host import request_amx
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import cpu_flags, native
from nybble.backends.cpu.plan import Buffer, BufferRef, Config, Kind, Plan, Program
from nybble.backends.cpu.runner import EXTERNALS, runner_module
from nybble.backends.cpu.weights import pack_weight
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes

CHUNK = 40
CONTEXT = 128
STAGES = (
    "specialize-tokens,select-dataflow,assign-layout,fuse-kernels,"
    "schedule-kernels,lower-kernels-to-cpu"
)
LAYER = """
func.func @layer(%h: tensor<?x64xf32>, %pos: index, %cos: tensor<128x16xf32>,
    %sin: tensor<128x16xf32>, %kc: tensor<1x128x32xKV>, %vc: tensor<1x128x32xKV>,
    %g1: tensor<64xf32>, %wq: !lowbit.tensor<64x64, "FMT">, %wk: !lowbit.tensor<32x64, "FMT">,
    %wv: !lowbit.tensor<32x64, "FMT">, %wo: !lowbit.tensor<64x64, "FMT">, %g2: tensor<64xf32>,
    %wg: !lowbit.tensor<96x64, "FMT">, %wu: !lowbit.tensor<96x64, "FMT">,
    %wd: !lowbit.tensor<64x96, "FMT">)
    -> (tensor<?x64xf32>, tensor<1x128x32xKV>, tensor<1x128x32xKV>) {
  %x = fused.rms_norm %h, %g1 eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %q = mpgemm.matmul %x, %wq : tensor<?x64xf32>, !lowbit.tensor<64x64, "FMT"> -> tensor<?x64xf32>
  %k = mpgemm.matmul %x, %wk : tensor<?x64xf32>, !lowbit.tensor<32x64, "FMT"> -> tensor<?x32xf32>
  %v = mpgemm.matmul %x, %wv : tensor<?x64xf32>, !lowbit.tensor<32x64, "FMT"> -> tensor<?x32xf32>
  %qr = fused.rope %q, %cos, %sin at %pos : tensor<?x64xf32>, tensor<128x16xf32> -> tensor<?x64xf32>
  %kr = fused.rope %k, %cos, %sin at %pos : tensor<?x32xf32>, tensor<128x16xf32> -> tensor<?x32xf32>
  %kn = sparse_attn.append_kv %kr into %kc at %pos
    : tensor<?x32xf32> into tensor<1x128x32xKV> -> tensor<1x128x32xKV>
  %vn = sparse_attn.append_kv %v into %vc at %pos
    : tensor<?x32xf32> into tensor<1x128x32xKV> -> tensor<1x128x32xKV>
  %a = sparse_attn.attention %qr, %kn, %vn at %pos mask <"window(9)"> scale 0.2
    : tensor<?x64xf32>, tensor<1x128x32xKV>, tensor<1x128x32xKV> -> tensor<?x64xf32>
  %o = mpgemm.matmul %a, %wo : tensor<?x64xf32>, !lowbit.tensor<64x64, "FMT"> -> tensor<?x64xf32>
  %h1 = arith.addf %h, %o : tensor<?x64xf32>
  %y = fused.rms_norm %h1, %g2 eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %g = mpgemm.matmul %y, %wg : tensor<?x64xf32>, !lowbit.tensor<96x64, "FMT"> -> tensor<?x96xf32>
  %u = mpgemm.matmul %y, %wu : tensor<?x64xf32>, !lowbit.tensor<96x64, "FMT"> -> tensor<?x96xf32>
  %f = fused.glu "silu" %g, %u : tensor<?x96xf32>
  %d = mpgemm.matmul %f, %wd : tensor<?x96xf32>, !lowbit.tensor<64x96, "FMT"> -> tensor<?x64xf32>
  %h2 = arith.addf %h1, %d : tensor<?x64xf32>
  func.return %h2, %kn, %vn : tensor<?x64xf32>, tensor<1x128x32xKV>, tensor<1x128x32xKV>
}
"""


class Layer:
    """The layer with random weights, as operators and as machine code."""

    def __init__(self, fmt, kv, threads, **options):
        text = LAYER.replace("FMT", fmt).replace("KV", kv)
        self.operators = parse_module(make_context(), text, "layer")
        function = next(iter(self.operators.ops))
        self.arguments = list(function.body.block.args)
        self.module = self.operators.clone()
        options |= {"threads": threads, "chunk": CHUNK}
        run_passes(make_context(), self.module, configure(build_pipeline(STAGES), options))
        self.values = self.random_values(np.random.default_rng(7))
        self.executor = self.load(threads)

    def random_values(self, rng):
        """Weights by name: (what the interpreter takes, the bytes that the kernels take)."""
        values = {}
        for argument in self.arguments:
            name, kind = argument.name_hint, argument.type
            if isinstance(kind, LowBitTensorType):
                shape, fmt = (kind.rows, kind.cols), kind.number_format
                weight = fmt.quantize(rng.standard_normal(shape, dtype=np.float32) / 8)
                values[name] = (weight, pack_weight(fmt, weight))
            elif name in ("cos", "sin", "g1", "g2"):
                array = rng.uniform(-1, 1, kind.get_shape()).astype(np.float32)
                values[name] = (array, array)
        return values

    def load(self, threads):
        assembler = Assembler(self.module)
        named = [a for a in self.arguments if not isinstance(a.type, IndexType)]
        refs = [BufferRef(a.name_hint) for a in named]
        programs = tuple(
            Program(phase, tuple(assembler.call(f"layer.{phase}", refs)))
            for phase in ("prefill", "decode")
        )
        sizes = assembler.argument_bytes("layer.prefill")
        buffers = [Buffer(a.name_hint, size, Kind.IO) for a, size in zip(named, sizes, strict=True)]
        plan = Plan(
            (*buffers, *assembler.buffers.values()),
            tuple(assembler.kernels.values()),
            programs,
            Config(CONTEXT, CHUNK, threads),
        )
        kernels = {
            op.sym_name.data: ModuleOp([op.clone()])
            for op in self.module.ops
            if isinstance(op, FuncOp) and op.sym_name.data in plan.kernel_table
        }
        objects = list(compile_modules(kernels).values())
        objects.append(compile_module(runner_module(native().architecture), allowed=EXTERNALS))
        executor = Executor(plan, load(objects, EXTERNALS), np.zeros(0, np.uint8), threads)
        for name, (_, data) in self.values.items():
            view = executor.view(name, np.uint8)
            view[:] = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        return executor

    def run(self, phase, h, pos):
        self.executor.view("h", np.float32)[: h.size] = h.reshape(-1)
        self.executor.run((phase,), len(h), pos)
        return self.executor.view("h", np.float32)[: h.size].reshape(h.shape).copy()

    def reference(self, function, h, pos, caches):
        given = {"h": h, "pos": pos, "kc": caches[0], "vc": caches[1]}
        given |= {name: value for name, (value, _) in self.values.items()}
        return Interpreter(function).call("layer", *(given[a.name_hint] for a in self.arguments))


def empty_caches(kv):
    return [np.zeros((1, CONTEXT, 32), {"f16": np.float16, "f32": np.float32}[kv])] * 2


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


LEVELS = [levels.BASELINE.name, levels.detect(cpu_flags()).name]


@pytest.mark.parametrize(
    ("fmt", "kv", "threads", "options", "bound"),
    [
        ("q4_1", "f32", 2, {"activations": "f32"}, 2e-6),
        ("q4_0", "f16", 1, {"activations": "i8"}, 5e-3),
        ("q4_0", "f16", 2, {"activations": "i8"}, 5e-3),
        ("q8_0", "f16", 2, {"activations": "i8", "prefill": "bf16"}, 1e-2),
        ("q4_1", "f32", 2, {"activations": "i16"}, 1e-4),
        ("bf16", "f32", 2, {"activations": "f32"}, 2e-6),
        ("w4g32", "f32", 2, {"activations": "f32"}, 2e-6),
    ],
)
@pytest.mark.parametrize("isa", dict.fromkeys(LEVELS))
def test_layer(fmt, kv, threads, options, bound, isa):
    """Prompt, token, prompt in the middle: hidden states stay those of the operators.

    With 8-bit activations the two quantize almost equal numbers, which may fall on either side of
    a rounding boundary; hence the wider bound, far below the error of a wrong index.
    """
    request_amx()
    layer = Layer(fmt, kv, threads, isa=isa, **options)
    rng = np.random.default_rng(1)
    caches, pos = empty_caches(kv), 0
    oracle = layer.operators.clone()
    tokens = {"activations": options["activations"]}
    run_passes(make_context(), oracle, configure(build_pipeline("select-dataflow"), tokens))
    for rows in (17, 1, 1, CHUNK, 3):
        h = rng.standard_normal((rows, 64), dtype=np.float32)
        found = layer.run("decode" if rows == 1 else "prefill", h, pos)
        wanted, *caches = layer.reference(oracle, h, pos, caches)
        assert relative(found, wanted) < bound
        pos += rows
    layer.executor.close()


def test_the_bound_would_see_a_wrong_position():
    layer = Layer("q4_1", "f32", 1, activations="f32")
    h = np.random.default_rng(1).standard_normal((5, 64), dtype=np.float32)
    found = layer.run("prefill", h, 3)
    wanted, *_ = layer.reference(layer.operators, h, 4, empty_caches("f32"))
    assert relative(found, wanted) > 1e-3
    layer.executor.close()
