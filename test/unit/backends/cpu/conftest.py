"""A language model of sixteen tokens, written as MLIR, for the tests of the run time.

The token after t is 3t + 1 mod 16: row t of its one weight has a one there.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from nybble.backends.cpu.codegen import compile_module, compile_modules
from nybble.backends.cpu.loader import Library, load
from nybble.backends.cpu.machine import native
from nybble.backends.cpu.plan import (
    Buffer,
    BufferRef,
    Config,
    Kernel,
    Kind,
    Plan,
    Program,
    Step,
)
from nybble.backends.cpu.runner import EXTERNALS, runner_module

VOCAB, CONTEXT, CHUNK, THREADS = 16, 32, 8, 4
LAUNCH = "%n: index, %pos: index, %tid: index, %nth: index"

STORE = f"""
func.func @store(%ids: memref<{CHUNK}xi32>, %text: memref<{CONTEXT}xi32>, {LAUNCH}) {{
  scf.for %i = %tid to %n step %nth {{
    %id = memref.load %ids[%i] : memref<{CHUNK}xi32>
    %at = arith.addi %pos, %i : index
    memref.store %id, %text[%at] : memref<{CONTEXT}xi32>
  }}
  return
}}"""

EMBED = f"""
func.func @embed(%text: memref<{CONTEXT}xi32>, %table: memref<{VOCAB * VOCAB}xf32>,
                 %out: memref<{CHUNK * VOCAB}xf32>, {LAUNCH}) {{
  %c0 = arith.constant 0 : index
  %width = arith.constant {VOCAB} : index
  scf.for %i = %tid to %n step %nth {{
    %at = arith.addi %pos, %i : index
    %id = memref.load %text[%at] : memref<{CONTEXT}xi32>
    %row = arith.index_cast %id : i32 to index
    %from = arith.muli %row, %width : index
    %to = arith.muli %i, %width : index
    %v = vector.load %table[%from] : memref<{VOCAB * VOCAB}xf32>, vector<{VOCAB}xf32>
    vector.store %v, %out[%to] : memref<{CHUNK * VOCAB}xf32>, vector<{VOCAB}xf32>
  }}
  return
}}"""

COPY = f"""
func.func @copy(%in: memref<{CHUNK * VOCAB}xf32>, %out: memref<{CHUNK * VOCAB}xf32>, {LAUNCH}) {{
  %width = arith.constant {VOCAB} : index
  scf.for %i = %tid to %n step %nth {{
    %at = arith.muli %i, %width : index
    %v = vector.load %in[%at] : memref<{CHUNK * VOCAB}xf32>, vector<{VOCAB}xf32>
    vector.store %v, %out[%at] : memref<{CHUNK * VOCAB}xf32>, vector<{VOCAB}xf32>
  }}
  return
}}"""

LAST = f"""
func.func @last(%in: memref<{CHUNK * VOCAB}xf32>, %out: memref<{VOCAB}xf32>, {LAUNCH}) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %width = arith.constant {VOCAB} : index
  %first = arith.cmpi eq, %tid, %c0 : index
  scf.if %first {{
    %row = arith.subi %n, %c1 : index
    %at = arith.muli %row, %width : index
    %v = vector.load %in[%at] : memref<{CHUNK * VOCAB}xf32>, vector<{VOCAB}xf32>
    vector.store %v, %out[%c0] : memref<{VOCAB}xf32>, vector<{VOCAB}xf32>
  }}
  return
}}"""

# Drawn with a temperature: the likeliest token, plus seed, plus the number of the draw.
SAMPLE = f"""
func.func @sample(%logits: memref<{VOCAB}xf32>, %heat: memref<2xf32>, %draw: memref<3xi64>,
                  %next: memref<1xi32>, {LAUNCH}) {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %width = arith.constant {VOCAB} : index
  %cold = arith.constant 0.0 : f32
  %first = arith.cmpi eq, %tid, %c0 : index
  scf.if %first {{
    %best = scf.for %i = %c1 to %width step %c1 iter_args(%b = %c0) -> (index) {{
      %x = memref.load %logits[%i] : memref<{VOCAB}xf32>
      %y = memref.load %logits[%b] : memref<{VOCAB}xf32>
      %more = arith.cmpf ogt, %x, %y : f32
      %new = arith.select %more, %i, %b : index
      scf.yield %new : index
    }}
    %t = memref.load %heat[%c0] : memref<2xf32>
    %hot = arith.cmpf ogt, %t, %cold : f32
    %seed = memref.load %draw[%c1] : memref<3xi64>
    %count = memref.load %draw[%c2] : memref<3xi64>
    %sum = arith.addi %seed, %count : i64
    %shift = arith.index_cast %sum : i64 to index
    %moved = arith.addi %best, %shift : index
    %wrapped = arith.remui %moved, %width : index
    %token = arith.select %hot, %wrapped, %best : index
    %id = arith.index_cast %token : index to i32
    memref.store %id, %next[%c0] : memref<1xi32>
  }}
  return
}}"""

KERNELS = {"store": STORE, "embed": EMBED, "copy": COPY, "last": LAST, "sample": SAMPLE}
ROWS = CHUNK * VOCAB * 4


def step(kernel: str, *buffers: str, barrier: bool = True) -> Step:
    return Step(kernel, tuple(BufferRef(name) for name in buffers), barrier)


def toy_plan(**config: object) -> Plan:
    rows = (
        step("store", "ids", "text"),
        step("embed", "text", "table", "raw"),
        step("copy", "raw", "hidden"),
    )
    return Plan(
        buffers=(
            Buffer("ids", CHUNK * 4, Kind.IO),
            Buffer("logits", VOCAB * 4, Kind.IO),
            Buffer("all_logits", ROWS, Kind.IO),
            Buffer("next", 4, Kind.IO),
            Buffer("sample_f32", 8, Kind.IO),
            Buffer("sample_i64", 24, Kind.IO),
            Buffer("text", CONTEXT * 4, Kind.STATE),
            Buffer("table", VOCAB * VOCAB * 4, Kind.WEIGHT),
            Buffer("raw", ROWS, Kind.ARENA),
            Buffer("hidden", ROWS, Kind.ARENA),
        ),
        kernels=(
            Kernel("store", (CHUNK * 4, CONTEXT * 4), "ru"),
            Kernel("embed", (CONTEXT * 4, VOCAB * VOCAB * 4, ROWS), "rrw"),
            Kernel("copy", (ROWS, ROWS), "rw"),
            Kernel("last", (ROWS, VOCAB * 4), "rw"),
            Kernel("sample", (VOCAB * 4, 8, 24, 4), "rrrw"),
        ),
        programs=(
            Program("prefill", rows),
            Program("decode", rows),
            Program("head_last", (step("last", "hidden", "logits"),)),
            Program("head_all", (step("copy", "hidden", "all_logits"),)),
            Program("sample", (step("sample", "logits", "sample_f32", "sample_i64", "next"),)),
        ),
        config=Config(
            **{"context": CONTEXT, "chunk": CHUNK, "threads": THREADS, "vocab": VOCAB} | config
        ),
    )


def toy_weight(name: str) -> np.ndarray:
    table = np.zeros((VOCAB, VOCAB), np.float32)
    table[np.arange(VOCAB), following(np.arange(VOCAB))] = 1
    return {"table": table}[name]


def following(token):
    return (3 * token + 1) % VOCAB


@dataclass(frozen=True)
class Toy:
    plan: Plan
    objects: list[bytes]

    def weight(self, name: str) -> np.ndarray:
        return toy_weight(name)

    def following(self, token: int) -> int:
        return following(token)


@pytest.fixture(scope="session")
def runner_object() -> bytes:
    return compile_module(runner_module(native().architecture), allowed=EXTERNALS)


@pytest.fixture(scope="session")
def runner(runner_object: bytes) -> Library:
    return load([runner_object], EXTERNALS)


@pytest.fixture(scope="session")
def toy(runner_object: bytes) -> Toy:
    return Toy(toy_plan(), [*compile_modules(KERNELS).values(), runner_object])
