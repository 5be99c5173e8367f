"""What a machine has no instruction for becomes several that it has: kernels need not know.

Machines below x86-64-v3, such as the usual virtual processors of QEMU, neither multiply and add in
one step (FMA) nor convert half floats (F16C), and LLVM would call libraries for both.

    Before: %y = math.fma %a, %b, %c : vector<4xf32>
    After:  %p = arith.mulf %a, %b : vector<4xf32>
            %y = arith.addf %p, %c : vector<4xf32>

The sum is rounded twice then. Conversions are exact, and to nearest even, for every float; a NaN
stays one.
"""

from collections.abc import Callable

from xdsl.dialects import arith, func, llvm, math
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr, f16, f32
from xdsl.ir import Attribute, Operation, Region
from xdsl.rewriter import Rewriter

from nybble.backends.building.expressions import Expressions
from nybble.backends.building.values import Value, element_type, i16, i32, with_element
from nybble.backends.cpu.machine import Machine

Conversion = Callable[[Expressions, Value], Value]
SIGN, HALF_INFINITY, INFINITY = 0x8000, 0x7C00, 0x7F800000
LEAST_NORMAL = 0x38800000
"""The bits of 2^-14, below which half floats are denormal."""
REBIASED = 112 << 23
"""What a float's exponent exceeds that of the half float of the same value by, in place."""


def expanded(module: ModuleOp, machine: Machine) -> ModuleOp:
    """A module of upstream dialects without what `machine` lacks; itself if it lacks nothing."""
    if machine.has_fma_and_f16c:
        return module
    made = module.clone()
    functions: dict[tuple[Attribute, Attribute], func.FuncOp] = {}
    for op in [*made.walk()]:
        if isinstance(op, math.FmaOp):
            product = arith.MulfOp(op.a, op.b)
            Rewriter.replace_op(op, [product, arith.AddfOp(product.result, op.c)])
        elif (rule := _conversion(op)) is not None:
            _call(op, rule, functions)
    made.body.block.add_ops(functions.values())
    return made


def _conversion(op: Operation) -> Conversion | None:
    """What replaces an operation, if it converts from or to half floats."""
    if isinstance(op, arith.ExtFOp) and element_type(op.input.type) == f16:
        return widen
    if isinstance(op, arith.TruncFOp) and element_type(op.result.type) == f16:
        return narrow if element_type(op.input.type) == f32 else None
    return None


def _call(
    op: Operation, rule: Conversion, functions: dict[tuple[Attribute, Attribute], func.FuncOp]
) -> None:
    (operand,), (result,) = op.operands, op.results
    key = operand.type, result.type
    if key not in functions:
        b = Expressions((operand.type,))
        made = b.to_float(rule(b, Value(b, b.entry.args[0])), element_type(result.type))
        b.emit_effect(func.ReturnOp, (made,))
        b.close_entry()
        types = (operand.type,), (result.type,)
        name = f"converted_{len(functions)}"
        function = func.FuncOp(name, types, Region(b.entry), visibility="private")
        function.attributes["llvm.linkage"] = llvm.LinkageAttr("internal")
        function.attributes["passthrough"] = ArrayAttr([StringAttr("alwaysinline")])
        functions[key] = function
    called = func.CallOp(functions[key].sym_name.data, (operand,), (result.type,))
    Rewriter.replace_op(op, called)


def widen(b: Expressions, value: Value) -> Value:
    """Half floats as f32: their bits in the fields of a float, whose exponent is then set right by
    a multiplication, also where they are denormal."""
    bits = b.zext(b.bitcast(value, with_element(value.type, i16)), i32)
    wide = with_element(value.type, f32)
    sign, rest = (bits & SIGN) << 16, bits & SIGN - 1
    finite = b.bitcast(b.bitcast(rest << 13, wide) * 2.0**112, bits.type)
    found = b.select(rest < HALF_INFINITY, finite, (rest << 13) | INFINITY)
    return b.bitcast(found | sign, wide)


def narrow(b: Expressions, value: Value) -> Value:
    """f32 as half floats, to nearest even. Denormal ones are rounded by adding a number whose last
    place is theirs."""
    bits = b.bitcast(value, with_element(value.type, i32))
    rest = bits & 0x7FFFFFFF
    odd = rest.shr(13) & 1
    normal = (rest - REBIASED + 0xFFF + odd).shr(13)
    half = b.bitcast(b.const(0.5, value.type), bits.type)
    small = b.bitcast(b.bitcast(rest, value.type) + 0.5, bits.type) - half
    found = b.select(rest < LEAST_NORMAL, small, b.min(normal, HALF_INFINITY))
    found = b.select(rest > INFINITY, b.const(HALF_INFINITY | 0x200, bits.type), found)
    found = found | bits.shr(16) & SIGN
    return b.bitcast(b.trunc(found, i16), with_element(value.type, f16))
