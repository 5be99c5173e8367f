"""The probes' code: modules of upstream dialects, as text.

Those of READS add up a range of memory; the others keep independent accumulators busy with one kind
of multiplication, so that neither memory nor latency limits them. All of it is loop-carried and
stored at the end: nothing can be optimized away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

READ_LANES = 16


@dataclass(frozen=True)
class Read:
    """A way to read memory in order: `streams` places at once, `vectors` of 64 bytes at each.

    ahead: bytes between what is read and what is prefetched; 0 for no prefetch.
    """

    name: str
    streams: int
    vectors: int
    ahead: int

    @property
    def step(self) -> int:
        """Bytes that a round of the inner loop reads of one stream."""
        return 4 * READ_LANES * self.vectors


READS = (Read("read", 1, 4, 0), Read("stream", 4, 2, 2048), Read("streams", 8, 1, 0))
"""Which one is faster depends on the machine and on where the data is; the roof is the fastest."""

_ANY = 1 << 40  # a static extent for memory of any size; nothing checks it

TILE_BYTES = 1024
TILE_CONFIG = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8])
"""AMX palette 1: eight tiles of 16 rows of 64 bytes (Intel SDM vol. 1, section 18.3)."""
_TILE_ACCUMULATORS = 4
TILE_OPERATIONS = {"int8": 16 * 16 * 64 * 2, "bf16": 16 * 16 * 32 * 2}
_TILE_INTRINSICS = {"int8": "llvm.x86.tdpbusd", "bf16": "llvm.x86.tdpbf16ps"}


@dataclass(frozen=True)
class Accumulate:
    """A peak probe on vector registers: `count` accumulators of `vector`, one `step` each a round.

    step: how the new value comes from {acc} and the operands %a and %b, of types `operands`.
    operations: multiplications and additions of one step.
    """

    name: str
    vector: str
    operands: tuple[str, str]
    step: str
    count: int
    operations: int


def read_module(read: Read) -> str:
    """`<name>(memory, sums i32 [16], first, length, passes)`: adds up i32 words of memory.

    Stream s reads words first + s * length to first + (s + 1) * length, a multiple of its step.
    """
    vector, memory = f"vector<{READ_LANES}xi32>", f"memref<{_ANY}xi32>"
    count = read.streams * read.vectors
    outer, inner, new = ([f"%{letter}{i}" for i in range(count)] for letter in "stn")
    types = ", ".join([vector] * count)
    body: list[str] = []
    for i in range(count):
        stream, place = divmod(i, read.vectors)
        body += [
            f"%k{i} = arith.constant {stream} : index",
            f"%b{i} = arith.muli %length, %k{i} : index",
            f"%c{i} = arith.constant {place * READ_LANES} : index",
            f"%d{i} = arith.addi %b{i}, %c{i} : index",
            f"%j{i} = arith.addi %j, %d{i} : index",
            f"%v{i} = vector.load %p[%j{i}] : {memory}, {vector}",
            f"{new[i]} = arith.addi {inner[i]}, %v{i} : {vector}",
        ]
        if read.ahead:
            body += [
                f"%a{i} = arith.constant {read.ahead // 4} : index",
                f"%l{i} = arith.addi %j{i}, %a{i} : index",
                f"memref.prefetch %p[%l{i}], read, locality<3>, data : {memory}",
            ]
    return f"""
func.func @{read.name}(%p: {memory}, %out: memref<{READ_LANES}xi32>,
                %first: index, %length: index, %passes: index) {{
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %step = arith.constant {READ_LANES * read.vectors} : index
  %stop = arith.addi %first, %length : index
  %empty = arith.constant dense<0> : {vector}
  %all:{count} = scf.for %pass = %zero to %passes step %one
      iter_args({_pairs(outer, ["%empty"] * count)}) -> ({types}) {{
    %part:{count} = scf.for %j = %first to %stop step %step
        iter_args({_pairs(inner, outer)}) -> ({types}) {{
      {_lines(body)}
      scf.yield {", ".join(new)} : {types}
    }}
    scf.yield {_numbered("%part", count)} : {types}
  }}
  {_fold("%all", count, vector, "arith.addi")}
  vector.store %sum, %out[%zero] : memref<{READ_LANES}xi32>, {vector}
  return
}}
"""


def vector_module(probe: Accumulate) -> str:
    """`<name>(x i8 [64], y i8 [64], sums [lanes], rounds)` of an Accumulate."""
    lanes, element = probe.vector.removeprefix("vector<").removesuffix(">").split("x")
    names = [f"%s{i}" for i in range(probe.count)]
    types = ", ".join([probe.vector] * probe.count)
    body = [probe.step.format(new=f"%n{i}", acc=f"%s{i}") for i in range(probe.count)]
    results = ", ".join(f"%n{i}" for i in range(probe.count))
    add = "arith.addf" if element.startswith("f") else "arith.addi"
    first, second = probe.operands
    zero = "0.0" if element.startswith("f") else "0"
    return f"""
func.func @{probe.name}(%x: memref<1x{first}>, %y: memref<1x{second}>,
                        %out: memref<{lanes}x{element}>, %rounds: index) {{
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %a = memref.load %x[%zero] : memref<1x{first}>
  %b = memref.load %y[%zero] : memref<1x{second}>
  %empty = arith.constant dense<{zero}> : {probe.vector}
  %all:{probe.count} = scf.for %round = %zero to %rounds step %one
      iter_args({_pairs(names, ["%empty"] * probe.count)}) -> ({types}) {{
    {_lines(body)}
    scf.yield {results} : {types}
  }}
  {_fold("%all", probe.count, probe.vector, add)}
  vector.store %sum, %out[%zero] : memref<{lanes}x{element}>, {probe.vector}
  return
}}
"""


def tile_module(kind: str) -> str:
    """`tile_<kind>(config i8 [64], x i8 [1024], y i8 [1024], sums i8 [1024], rounds)`, for AMX.

    kind: "int8" or "bf16". Every round multiplies into four accumulator tiles.
    """
    steps = [
        f'llvm.call_intrinsic "{_TILE_INTRINSICS[kind]}"(%k{i}, %k4, %k5) : (i8, i8, i8) -> ()'
        for i in range(_TILE_ACCUMULATORS)
    ]
    clear = [
        f'llvm.call_intrinsic "llvm.x86.tilezero"(%k{i}) : (i8) -> ()'
        for i in range(_TILE_ACCUMULATORS)
    ]
    tiles = [f"%k{i} = llvm.mlir.constant({i} : i8) : i8" for i in range(6)]
    return f"""
llvm.func @tile_{kind}(%config: !llvm.ptr, %x: !llvm.ptr, %y: !llvm.ptr, %out: !llvm.ptr,
                       %rounds: i64) {{
  {_lines(tiles)}
  %stride = llvm.mlir.constant(64 : i64) : i64
  %zero = llvm.mlir.constant(0 : i64) : i64
  %one = llvm.mlir.constant(1 : i64) : i64
  llvm.call_intrinsic "llvm.x86.ldtilecfg"(%config) : (!llvm.ptr) -> ()
  {_lines(clear)}
  llvm.call_intrinsic "llvm.x86.tileloadd64"(%k4, %x, %stride) : (i8, !llvm.ptr, i64) -> ()
  llvm.call_intrinsic "llvm.x86.tileloadd64"(%k5, %y, %stride) : (i8, !llvm.ptr, i64) -> ()
  llvm.br ^round(%zero : i64)
^round(%i: i64):
  {_lines(steps)}
  %next = llvm.add %i, %one : i64
  %more = llvm.icmp "slt" %next, %rounds : i64
  llvm.cond_br %more, ^round(%next : i64), ^done
^done:
  llvm.call_intrinsic "llvm.x86.tilestored64"(%k0, %out, %stride) : (i8, !llvm.ptr, i64) -> ()
  llvm.call_intrinsic "llvm.x86.tilerelease"() : () -> ()
  llvm.return
}}
"""


def tile_operations(kind: str) -> int:
    """Multiplications and additions of one round of a tile probe."""
    return _TILE_ACCUMULATORS * TILE_OPERATIONS[kind]


def _lines(parts: Sequence[str]) -> str:
    return "\n  ".join(parts)


def _pairs(names: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))


def _numbered(name: str, count: int) -> str:
    return ", ".join(f"{name}#{i}" for i in range(count))


def _fold(name: str, count: int, type_: str, add: str) -> str:
    """%sum: the results of a loop, added up."""
    lines = [f"%f1 = {add} {name}#0, {name}#1 : {type_}"]
    lines += [f"%f{i} = {add} %f{i - 1}, {name}#{i} : {type_}" for i in range(2, count)]
    lines[-1] = lines[-1].replace(f"%f{count - 1} =", "%sum =", 1)
    return _lines(lines)
