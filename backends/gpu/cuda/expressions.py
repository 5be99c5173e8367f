"""Operations without effects as C++ expressions of their operands."""

from collections.abc import Callable, Mapping, Sequence

from xdsl.dialects import arith, llvm, math, vector
from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr
from xdsl.ir import Operation

from nybble.backends.gpu.builder import DYNAMIC, SHARED
from nybble.backends.gpu.cuda.types import SIGNED, as_signed, cpp_type, literal
from nybble.dialects import upstream

Write = Callable[[Operation, Sequence[str]], str]
_SIGNED_ORDER = {2: "<", 3: "<=", 4: ">", 5: ">="}
_UNSIGNED_ORDER = {0: "==", 1: "!=", 6: "<", 7: "<=", 8: ">", 9: ">="}
_FLOAT_ORDER = {1: "==", 2: ">", 3: ">=", 4: "<", 5: "<=", 13: "!="}
_NOTHING = frozenset(
    {(symbol, zero) for symbol in ("+", "-", ">>", "<<") for zero in ("0u", "0ull")}
    | {("*", "1u"), ("*", "1ull")}
)
"""Operations and operands that change nothing."""
_NARROW = ("i8", "i16")
_TO_FLOAT = {"f16": "__half2float", "bf16": "__bfloat162float"}
_FROM_FLOAT = {"f16": "__float2half_rn", "bf16": "__float2bfloat16_rn"}
_SREG = {"tid": "threadIdx", "ctaid": "blockIdx"}


def _plain(symbol: str) -> Write:
    """a symbol b; C++ computes with small integers as `int`."""

    def write(op: Operation, of: Sequence[str]) -> str:
        if (symbol, of[1]) in _NOTHING:
            return of[0]
        text, type_ = f"{of[0]} {symbol} {of[1]}", op.results[0].type
        return f"({cpp_type(type_)})({text})" if str(type_) in _NARROW else text

    return write


def _signed(symbol: str) -> Write:
    """The same of signed integers."""

    def write(op: Operation, of: Sequence[str]) -> str:
        type_ = op.results[0].type
        left, right = (as_signed(one, type_) for one in of)
        return f"({cpp_type(type_)})({left} {symbol} {right})"

    return write


def _call(name: str) -> Write:
    return lambda _op, of: f"{name}({', '.join(of)})"


def _compare_integers(op: Operation, of: Sequence[str]) -> str:
    predicate = op.properties["predicate"]
    assert isinstance(predicate, IntegerAttr)
    order = predicate.value.data
    if order in _UNSIGNED_ORDER:
        return f"{of[0]} {_UNSIGNED_ORDER[order]} {of[1]}"
    left, right = (as_signed(one, op.operands[0].type) for one in of)
    return f"{left} {_SIGNED_ORDER[order]} {right}"


def _compare_floats(op: Operation, of: Sequence[str]) -> str:
    predicate = op.properties["predicate"]
    assert isinstance(predicate, IntegerAttr)
    return f"{of[0]} {_FLOAT_ORDER[predicate.value.data]} {of[1]}"


def _select(_op: Operation, of: Sequence[str]) -> str:
    return f"{of[0]} ? {of[1]} : {of[2]}"


def _extend_signed(op: Operation, of: Sequence[str]) -> str:
    source, result = str(op.operands[0].type), op.results[0].type
    narrow = f"({SIGNED[source]}){of[0]}" if source != "i1" else f"-(int){of[0]}"
    return f"({cpp_type(result)})({SIGNED[str(result)]})({narrow})"


def _as_result(op: Operation, of: Sequence[str]) -> str:
    return f"({cpp_type(op.results[0].type)}){of[0]}"


def _from_signed(op: Operation, of: Sequence[str]) -> str:
    return f"({cpp_type(op.results[0].type)})({SIGNED[str(op.operands[0].type)]}){of[0]}"


def _to_signed(op: Operation, of: Sequence[str]) -> str:
    result = op.results[0].type
    return f"({cpp_type(result)})({SIGNED[str(result)]}){of[0]}"


def _widen(op: Operation, of: Sequence[str]) -> str:
    return f"{_TO_FLOAT[str(op.operands[0].type)]}({of[0]})"


def _narrow(op: Operation, of: Sequence[str]) -> str:
    return f"{_FROM_FLOAT[str(op.results[0].type)]}({of[0]})"


def _bits(op: Operation, of: Sequence[str]) -> str:
    return f"cast<{cpp_type(op.results[0].type)}>({of[0]})"


def _moved(op: Operation, of: Sequence[str]) -> str:
    assert isinstance(op, llvm.GEPOp)
    raw = op.rawConstantIndices.get_values()[0]
    if raw != DYNAMIC:
        return f"{of[0]} + {raw}"
    if op.operands[0].type == SHARED:
        return f"{of[0]} + {of[1]}"
    return f"{of[0]} + {as_signed(of[1], op.operands[1].type)}"


def _lane(op: Operation, of: Sequence[str]) -> str:
    position = op.properties["static_position"]
    assert isinstance(position, DenseArrayBase)
    return f"{of[0]}.lane[{position.get_values()[0]}]"


def _spread(op: Operation, of: Sequence[str]) -> str:
    return f"spread<{cpp_type(op.results[0].type)}>({of[0]})"


def _with_lane(op: Operation, of: Sequence[str]) -> str:
    position = op.properties["static_position"]
    assert isinstance(position, DenseArrayBase)
    return f"with_lane({of[1]}, {position.get_values()[0]}, {of[0]})"


def _register(op: Operation, _of: Sequence[str]) -> str:
    assert isinstance(op, llvm.CallIntrinsicOp)
    *_, name, axis = op.intrin.data.split(".")
    return f"{_SREG[name]}.{axis}"


def _constant(op: Operation, _of: Sequence[str]) -> str:
    assert isinstance(op, arith.ConstantOp)
    return literal(op.value)


def _shared(_op: Operation, _of: Sequence[str]) -> str:
    return "(uint32_t)__cvta_generic_to_shared(shared_memory)"


EXPRESSIONS: Mapping[type[Operation], Write] = {
    arith.ConstantOp: _constant,
    arith.AddiOp: _plain("+"), arith.SubiOp: _plain("-"), arith.MuliOp: _plain("*"),
    arith.AndIOp: _plain("&"), arith.OrIOp: _plain("|"), arith.XOrIOp: _plain("^"),
    arith.ShLIOp: _plain("<<"), arith.ShRUIOp: _plain(">>"), arith.ShRSIOp: _signed(">>"),
    arith.DivUIOp: _plain("/"), arith.RemUIOp: _plain("%"),
    arith.DivSIOp: _signed("/"), arith.RemSIOp: _signed("%"),
    arith.AddfOp: _plain("+"), arith.SubfOp: _plain("-"), arith.MulfOp: _plain("*"),
    arith.DivfOp: _plain("/"), arith.NegfOp: lambda _op, of: f"-{of[0]}",
    upstream.CmpiOp: _compare_integers, upstream.CmpfOp: _compare_floats,
    upstream.SelectOp: _select, upstream.ExtSIOp: _extend_signed, upstream.ExtUIOp: _as_result,
    upstream.TruncIOp: _as_result, upstream.SIToFPOp: _from_signed,
    upstream.UIToFPOp: _as_result, upstream.FPToSIOp: _to_signed,
    arith.ExtFOp: _widen, arith.TruncFOp: _narrow, arith.BitcastOp: _bits,
    math.FmaOp: _call("fmaf"), math.AbsFOp: _call("fabsf"), math.RoundEvenOp: _call("rintf"),
    llvm.BitcastOp: _bits, llvm.GEPOp: _moved,
    vector.ExtractOp: _lane, vector.BroadcastOp: _spread, vector.InsertOp: _with_lane,
    llvm.CallIntrinsicOp: _register, llvm.AddressOfOp: _shared,
}  # fmt: skip
"""Operation -> how it is written; its operands are names, literals or in parentheses."""
