"""Instructions that this host lacks, spelled out in generic vector operations.

Code generated for one instruction-set level then runs on any machine, bit for bit, and slowly: for
tests, not for use. `SEMANTICS` has a row for each LLVM intrinsic that a lowering may call, or
`emulate_tiles.EFFECTS` where it has no result.

    code = compile_runnable(ModuleOp([lower_matmul(spec, "f")]), AVX512_VNNI)

Sources: Intel SDM volume 2, Arm ARM (DDI 0487) section C7; names and operand orders are those of
LLVM's IntrinsicsX86.td and IntrinsicsAArch64.td.
"""

from collections.abc import Callable, Mapping, Sequence

from xdsl.dialects import func, llvm
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr, i16
from xdsl.ir import Attribute, Region
from xdsl.rewriter import Rewriter

from nybble.backends.building.values import lanes
from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.emulate_tiles import EFFECTS, tiles_of
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.builder import Expressions, Value, i32
from nybble.backends.cpu.machine import cpu_flags, for_level
from nybble.dialects.errors import NybbleError

Rule = Callable[[Expressions, Sequence[Value], Attribute], Value]
"""(where to build, operands, type of the result) -> the result."""


class EmulationError(NybbleError):
    """An intrinsic that neither SEMANTICS nor EFFECTS has a row for."""


def compile_runnable(module: ModuleOp, level: Isa) -> bytes:
    """Object code that this host runs, of a module made for a level: emulated if it lacks that.

    Raises EmulationError like `emulate`, CodegenError like `compile_module`.
    """
    if level.needs <= cpu_flags():
        return compile_module(module, for_level(level))
    return compile_module(emulate(module), opt=1)


def emulate(module: ModuleOp) -> ModuleOp:
    """A copy of a module whose intrinsics are calls of functions with their meaning.

    Raises EmulationError at an intrinsic that is not in SEMANTICS or EFFECTS.
    """
    made = module.clone()
    functions: dict[tuple[str, Sequence[Attribute]], func.FuncOp] = {}
    for call in [op for op in made.walk() if isinstance(op, llvm.CallIntrinsicOp)]:
        types = tuple(value.type for value in call.operands)
        key = (call.intrin.data, types)
        if key not in functions:
            functions[key] = _function(len(functions), *key, tuple(call.result_types))
        called = func.CallOp(functions[key].sym_name.data, call.operands, call.result_types)
        Rewriter.replace_op(call, called)
    made.body.block.add_ops(functions.values())
    if any(name in EFFECTS for name, _ in functions):
        made.body.block.add_op(tiles_of())
    return made


def _function(
    number: int, name: str, types: Sequence[Attribute], results: Sequence[Attribute]
) -> func.FuncOp:
    rule, effect = SEMANTICS.get(name), EFFECTS.get(name)
    b = Expressions(types)
    operands = [Value(b, argument) for argument in b.entry.args]
    if effect is not None:
        effect(b, operands)
        b.emit_effect(func.ReturnOp, ())
    elif rule is not None:
        b.emit_effect(func.ReturnOp, (rule(b, operands, *results),))
    else:
        raise EmulationError(
            f"no meaning is known of the intrinsic '{name}'",
            accepted=", ".join((*SEMANTICS, *EFFECTS)),
        )
    b.close_entry()
    made = func.FuncOp(
        f"emulated_{number}_{name}", (types, results), Region(b.entry), visibility="private"
    )
    made.attributes["llvm.linkage"] = llvm.LinkageAttr("internal")
    made.attributes["passthrough"] = ArrayAttr([StringAttr("noinline")])  # quick to compile
    return made


# -- products


def _dot(signed: tuple[bool, bool], count: int) -> Rule:
    """acc + sums of `count` products side by side, wrapping in 32 bits: VPDPBUSD, SDOT, .."""

    def rule(b: Expressions, operands: Sequence[Value], result: Attribute) -> Value:
        total, *factors = operands
        words = [b.bitcast(factor, result) for factor in factors]
        for place in range(count):
            pairs = zip(words, signed, strict=True)
            x, y = (_part(word, place, 32 // count, is_signed) for word, is_signed in pairs)
            total = total + x * y
        return total

    return rule


def _part(word: Value, place: int, bits: int, signed: bool) -> Value:
    """A part of i32 lanes as a number, the parts counted from the lowest bits."""
    top = word << 32 - bits * (place + 1)
    return top >> 32 - bits if signed else top.shr(32 - bits)


def _pmaddubsw(b: Expressions, operands: Sequence[Value], result: Attribute) -> Value:
    """u8 x s8, pairs added with saturation to 16 bits."""
    x, y = operands
    products = b.zext(x, i32) * b.sext(y, i32)
    even, odd = (b.shuffle(products, products, range(i, lanes(x.type), 2)) for i in (0, 1))
    pairs = even + odd
    return b.trunc(b.max(b.min(pairs, 2**15 - 1), -(2**15)), i16)


def _pmaddwd(b: Expressions, operands: Sequence[Value], result: Attribute) -> Value:
    """s16 x s16, pairs added in 32 bits."""
    return _dot((True, True), 2)(b, [b.const(0, result), *operands], result)


# -- tables


def _looked_up(b: Expressions, table: Sequence[Value], index: Value) -> Value:
    """table[index] of each lane, over the tables in a row; 0 where there is no such entry."""
    found = b.const(0, index.type)
    for number, one in enumerate(table):
        for lane in range(lanes(one.type)):
            entry = b.broadcast(b.extract(one, lane), lanes(index.type))
            found = b.select(index.eq(number * lanes(one.type) + lane), entry, found)
    return found


def _pshufb(b: Expressions, operands: Sequence[Value], result: Attribute) -> Value:
    """Bytes picked within each 128 bits by the low four bits; 0 where the top bit is set."""
    table, index = operands
    index = index & -113
    parts = [
        _looked_up(b, [b.slice(table, at, 16)], b.slice(index, at, 16))
        for at in range(0, lanes(result), 16)
    ]
    return b.join(parts)


def _permute(b: Expressions, operands: Sequence[Value], result: Attribute) -> Value:
    """VPERMB, VPERMW, VPERMD: table[index modulo lanes]."""
    table, index = operands
    return _looked_up(b, [table], index & lanes(result) - 1)


def _permute_two(b: Expressions, operands: Sequence[Value], result: Attribute) -> Value:
    """VPERMI2B and its like: two tables in a row, the index between them."""
    low, index, high = operands
    return _looked_up(b, [low, high], index & 2 * lanes(result) - 1)


def _tbl(b: Expressions, operands: Sequence[Value], result: Attribute) -> Value:
    """TBL: up to four tables in a row; 0 beyond them."""
    *table, index = operands
    return _looked_up(b, table, index)


# -- bits


def _pternlog(b: Expressions, operands: Sequence[Value], result: Attribute) -> Value:
    """Bit `4 a + 2 b + c` of a truth table, for each bit of three words."""
    *words, table = operands
    found = b.const(0, result)
    for row in range(8):
        term = b.broadcast(-((table >> row) & 1), lanes(result))
        for word, is_set in zip(words, (row & 4, row & 2, row & 1), strict=True):
            term = term & (word if is_set else word ^ -1)
        found = found | term
    return found


def _rows(form: str, rule: Rule, *names: str) -> dict[str, Rule]:
    return {f"llvm.{form.format(name)}": rule for name in names}


SEMANTICS: Mapping[str, Rule] = {
    **_rows("x86.avx512.vpdpbusd.{}", _dot((False, True), 4), "128", "256", "512"),
    **_rows("x86.avx512.vpdpwssd.{}", _dot((True, True), 2), "128", "256", "512"),
    **_rows(
        "x86.{}", _pmaddubsw, "ssse3.pmadd.ub.sw.128", "avx2.pmadd.ub.sw", "avx512.pmaddubs.w.512"
    ),
    **_rows("x86.{}", _pmaddwd, "sse2.pmadd.wd", "avx2.pmadd.wd", "avx512.pmaddw.d.512"),
    **_rows("x86.{}", _pshufb, "ssse3.pshuf.b.128", "avx2.pshuf.b", "avx512.pshuf.b.512"),
    **_rows("x86.avx512.permvar.{}", _permute, "qi.256", "qi.512", "hi.512", "si.512"),
    **_rows("x86.avx2.{}", _permute, "permd"),
    **_rows("x86.avx512.vpermi2var.{}", _permute_two, "qi.256", "qi.512", "hi.512", "d.512"),
    **_rows("x86.avx512.pternlog.{}", _pternlog, "d.128", "d.256", "d.512"),
    **_rows("aarch64.neon.sdot.{}", _dot((True, True), 4), "v2i32.v8i8", "v4i32.v16i8"),
    **_rows("aarch64.neon.udot.{}", _dot((False, False), 4), "v2i32.v8i8", "v4i32.v16i8"),
    **_rows("aarch64.neon.usdot.{}", _dot((False, True), 4), "v2i32.v8i8", "v4i32.v16i8"),
    **_rows("aarch64.neon.{}.v8i8", _tbl, "tbl1", "tbl2", "tbl3", "tbl4"),
    **_rows("aarch64.neon.{}.v16i8", _tbl, "tbl1", "tbl2", "tbl3", "tbl4"),
}
"""Intrinsic -> its meaning."""
