"""GpuBuilder: write a kernel of a GPU as maths, get an `llvm.func` in upstream dialects.

A kernel is `llvm.func @name(%parameter, ..)` of buffers in global memory and numbers.
Loops and branches are `scf`, arithmetic is `arith`, memory is `llvm.load`, `llvm.store` and
`llvm.getelementptr` on bytes; what only the machine has (`cp.async`, `mma`, `lop3`, loads with a
cache policy) is inline PTX. All numbers of threads, rows and bytes are `i32`.

    x, y = Parameter("x", "f32", Access.READ), Parameter("y", "f32", Access.WRITE)
    b = GpuBuilder("double", (x, y))
    x, y = b.parameters
    at = b.thread() * 4
    value = b.load(b.offset(x, at), f32)
    b.store(value + value, b.offset(y, at))
    module = b.finish(threads=128)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2

from xdsl.dialects import llvm, scf, vector
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    IntAttr,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
    VectorType,
    bf16,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, ParametrizedAttribute, Region
from xdsl.irdl import irdl_attr_definition
from xdsl.printer import Printer

from nybble.backends.building.expressions import Expressions
from nybble.backends.building.values import Operand, Value
from nybble.backends.gpu.image import Access, Parameter

GLOBAL = llvm.LLVMPointerType(IntAttr(1))
SHARED = llvm.LLVMPointerType(IntAttr(3))
TENSOR_MAP = llvm.LLVMPointerType()
"""The place of a parameter that is a tensor map."""
TENSOR_MAP_BYTES = 128
SHARED_MEMORY = "shared_memory"
DYNAMIC = -(2**31)
"""Stands for an index that is an operand (upstream's `kDynamicIndex` of a GEP)."""
FULL_WARP = -1
ELEMENTS: dict[str, Attribute] = {
    "f64": f64, "f32": f32, "f16": f16, "bf16": bf16, "i64": i64, "i32": i32, "i16": i16, "i8": i8,
}  # fmt: skip
_CLASSES = {str(t): c for t, c in ((f32, "f"), (f64, "d"), (i64, "l"), (i32, "r"), (i16, "h"))}
_BYTES = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "bf16": 2, "i16": 2}
_CLASSES[str(GLOBAL)], _CLASSES[str(SHARED)], _CLASSES[str(TENSOR_MAP)] = "l", "r", "l"


BARRIER = "llvm.nvvm.barrier.cta.sync.aligned.all"


@irdl_attr_definition
class KernelConvention(ParametrizedAttribute):
    """The calling convention of a kernel, which xDSL's own attribute does not know."""

    name = "llvm.cconv"

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string("<ptx_kernelcc>")


class GpuBuilder(Expressions):
    """Builds one kernel; `parameters` are its arguments in order."""

    def __init__(self, name: str, parameters: Sequence[Parameter]):
        super().__init__([_parameter_type(one) for one in parameters])
        self.name = name
        self.parameters = [Value(self, a) for a in self.entry.args]
        self._known: dict[str, Value] = {}

    # -- who am I

    def thread(self) -> Value:
        """Index of the thread in its block."""
        return self._register("tid.x")

    def block_id(self) -> Value:
        """Index of the block in the grid."""
        return self._register("ctaid.x")

    def _register(self, name: str) -> Value:
        if name not in self._known:
            intrinsic = StringAttr(f"llvm.nvvm.read.ptx.sreg.{name}")
            properties: dict[str, Attribute] = {
                "intrin": intrinsic,
                "fastmathFlags": llvm.FastMathAttr(None),
                "op_bundle_sizes": DenseArrayBase.from_list(i32, []),
                "operandSegmentSizes": DenseArrayBase.from_list(i32, [0, 0]),
            }
            self._known[name] = self.emit_at_entry(llvm.CallIntrinsicOp, (), i32, properties)
        return self._known[name]

    # -- memory

    def shared(self) -> Value:
        """The dynamic shared memory of the block, aligned to 128 bytes."""
        if SHARED_MEMORY not in self._known:
            reference = {"global_name": SymbolRefAttr(SHARED_MEMORY)}
            self._known[SHARED_MEMORY] = self.emit_at_entry(llvm.AddressOfOp, (), SHARED, reference)
        return self._known[SHARED_MEMORY]

    def offset(self, pointer: Value, count: Operand) -> Value:
        """The pointer `count` bytes on."""
        if isinstance(count, int):
            if count == 0:
                return pointer
            return self._moved(pointer, (), count)
        assert isinstance(count, Value)
        return self._moved(pointer, (count,), DYNAMIC)

    def _moved(self, pointer: Value, indices: Sequence[Value], raw: int) -> Value:
        properties: dict[str, Attribute] = {
            "elem_type": i8,
            "rawConstantIndices": DenseArrayBase.from_list(i32, [raw]),
            "noWrapFlags": IntegerAttr(0, i32),
        }
        return self.emit(llvm.GEPOp, (pointer, *indices), pointer.type, properties)

    def load(self, pointer: Value, type_: Attribute, alignment: int | None = None) -> Value:
        """What lies at a pointer; a vector at a pointer aligned to all its bytes."""
        return self.emit(llvm.LoadOp, (pointer,), type_, _aligned(type_, alignment))

    def store(self, value: Value, pointer: Value, alignment: int | None = None) -> None:
        """Put a value where a pointer points; a vector as in `load`."""
        self.emit_effect(llvm.StoreOp, (value, pointer), _aligned(value.type, alignment))

    def choose(
        self, cond: Value, then: Callable[[], list[Value]], otherwise: Callable[[], list[Value]]
    ) -> list[Value]:
        """The values of the one branch that is taken."""
        outer, blocks = self.block, (Block(), Block())
        types: list[Attribute] = []
        for block, make in zip(blocks, (then, otherwise), strict=True):
            self.block = block
            values = make()
            types = [one.type for one in values]
            self.emit_effect(scf.YieldOp, values)
        self.block = outer
        regions = [Region(block) for block in blocks]
        made = scf.IfOp.create(operands=[cond.ssa], result_types=types, regions=regions)
        self.block.add_op(made)
        return [Value(self, one) for one in made.results]

    # -- the machine's own

    def ptx(
        self,
        text: str,
        results: Sequence[Attribute] = (),
        operands: Sequence[Value] = (),
        *,
        changed: Sequence[Value] = (),
        effects: bool = False,
    ) -> list[Value]:
        """Inline PTX: `$0 ..` are the results, then the operands; `effects` keeps its place.

        changed: what the first results' registers hold before; numbers of operands come after them.

        An operation without effects is a function of its operands: it may be moved or shared.
        """
        constraints = ["=" + _CLASSES[str(one)] for one in results]
        constraints += [str(index) for index in range(len(changed))]
        constraints += [_CLASSES[str(one.type)] for one in operands]
        constraints += ["~{memory}"] if effects else []
        operands = [*changed, *operands]
        properties: dict[str, Attribute] = {
            "asm_string": StringAttr(text),
            "constraints": StringAttr(",".join(constraints)),
            "asm_dialect": IntegerAttr(0, i64),
        }
        if effects:
            properties["has_side_effects"] = UnitAttr()
        if not results:
            self.emit_effect(llvm.InlineAsmOp, operands, properties)
            return []
        if len(results) == 1:
            return [self.emit(llvm.InlineAsmOp, operands, results[0], properties)]
        struct = llvm.LLVMStructType.from_type_list(results)
        made = self.emit(llvm.InlineAsmOp, operands, struct, properties)
        return [self._field(made, i, one) for i, one in enumerate(results)]

    def computed(self, values: Sequence[Value]) -> list[Value]:
        """The same values, which are computed before this place and not where they are used."""
        return self.ptx("", [one.type for one in values], changed=values, effects=True)

    def _field(self, struct: Value, index: int, type_: Attribute) -> Value:
        position = {"position": DenseArrayBase.from_list(i64, [index])}
        return self.emit(llvm.ExtractValueOp, (struct,), type_, position)

    def reinterpret(self, value: Value, type_: Attribute) -> Value:
        """The same bits as another type of as many bits, scalar or vector."""
        return self.emit(llvm.BitcastOp, (value,), type_)

    def lanes_of(self, vector: Value) -> list[Value]:
        """The lanes of a vector, one by one."""
        assert isinstance(vector.type, VectorType)
        return [self.extract(vector, i) for i in range(vector.type.get_shape()[0])]

    def emit_from(self, scalars: Sequence[Value]) -> Value:
        """The vector of some scalars."""
        made = self.broadcast(scalars[0], len(scalars))
        for lane, value in enumerate(scalars[1:], 1):
            position = {"static_position": DenseArrayBase.from_list(i64, [lane])}
            made = self.emit(vector.InsertOp, (value, made), made.type, position)
        return made

    def and_or(self, word: Value, mask: int, bits: Operand) -> Value:
        """`word & mask | bits` of i32 in one instruction; bits: a number or i32."""
        if isinstance(bits, Value):
            return self.ptx(f"lop3.b32 $0, $1, {mask:#x}, $2, 0xea;", [i32], [word, bits])[0]
        return self.ptx(f"lop3.b32 $0, $1, {mask:#x}, {bits:#x}, 0xea;", [i32], [word])[0]

    def permute(self, low: Value, high: Value, selector: Value | int) -> Value:
        """Four bytes picked of the eight of two i32, one by each digit below 8 of the selector."""
        if isinstance(selector, Value):
            return self.ptx("prmt.b32 $0, $1, $2, $3;", [i32], [low, high, selector])[0]
        return self.ptx(f"prmt.b32 $0, $1, $2, {selector:#x};", [i32], [low, high])[0]

    def fuse_halves(self, pair: Value, factors: Value, added: Value, dtype: str) -> Value:
        """Two 16-bit floats of an i32, times two others, plus two others, each rounded once."""
        operands = [pair, factors, added]
        return self.ptx(f"fma.rn.{dtype}x2 $0, $1, $2, $3;", [i32], operands)[0]

    def subtract_halves(self, pair: Value, less: Value, dtype: str) -> Value:
        """Two 16-bit floats of an i32 less two others."""
        minus = {"f16": 0xBC00BC00, "bf16": 0xBF80BF80}[dtype]
        return self.fuse_halves(less, self.word(minus), pair, dtype)

    def scale_halves(self, pair: Value, factor: float, dtype: str) -> Value:
        """Two 16-bit floats of an i32 times a power of two; no result is -0 of a 0."""
        bias, mantissa = {"f16": (15, 10), "bf16": (127, 7)}[dtype]
        bits = (bias + int(log2(factor))) << mantissa
        return self.fuse_halves(pair, self.word(bits * 0x10001), self.word(0x80008000), dtype)

    def word(self, bits: int) -> Value:
        """An i32 of the bits of an unsigned number."""
        return self.const(bits - 2**32 if bits >= 2**31 else bits, i32)

    def load_words(self, pointer: Value, at: int, count: int, policy: str = "nc") -> list[Value]:
        """`count` (1, 2 or 4) i32 of global memory, `at` bytes on.

        policy: what stands between `ld.global.` and the type; "nc.." only for what no thread of
        this launch writes.
        """
        names = ", ".join(f"${i}" for i in range(count))
        shape, target = (f".v{count}", f"{{{names}}}") if count > 1 else ("", names)
        text = f"ld.global.{policy}{shape}.b32 {target}, [${count}+{at}];"
        effects = not policy.startswith("nc")
        return self.ptx(text, [i32] * count, [pointer], effects=effects)

    def mma(
        self, kind: str, a: Sequence[Value], b: Sequence[Value], c: Sequence[Value]
    ) -> list[Value]:
        """c + a @ b of one warp; kind: shape, layouts and types, as PTX spells them."""
        groups: list[str] = []
        first = 0
        for count in (len(c), len(a), len(b), len(c)):
            groups.append("{" + ", ".join(f"${first + i}" for i in range(count)) + "}")
            first += count
        text = f"mma.sync.aligned.{kind} {', '.join(groups)};"
        return self.ptx(text, [one.type for one in c], [*a, *b, *c])

    def copy_async(
        self, target: Value, source: Value, at: int, policy: Value | None = None
    ) -> None:
        """16 bytes of global memory into shared memory, past the first-level cache; see `arrive`.

        at: bytes that both are further on.
        """
        hint, rest = (".L2::cache_hint", ", $2") if policy is not None else ("", "")
        text = f"cp.async.cg.shared.global{hint} [$0+{at}], [$1+{at}], 16{rest};"
        operands = [target, source] if policy is None else [target, source, policy]
        self.ptx(text, (), operands, effects=True)

    def evict_first(self) -> Value:
        """The policy for data that nobody reads again."""
        text = "createpolicy.fractional.L2::evict_first.b64 $0;"
        return self.ptx(text, [i64])[0]

    def commit(self) -> None:
        """Close the group of asynchronous copies of this thread."""
        self.ptx("cp.async.commit_group;", effects=True)

    def arrive(self, pending: int) -> None:
        """Wait until at most `pending` groups of copies of this thread are under way."""
        self.ptx(f"cp.async.wait_group {pending};", effects=True)

    def sync_warp(self) -> None:
        """All lanes meet here and see each other's memory."""
        self.ptx("bar.warp.sync 0xffffffff;", effects=True)

    def barrier(self) -> None:
        """All threads of the block meet here and see each other's shared memory.

        LLVM may copy inline PTX into the branches of a condition, where threads would meet at
        different barriers; of the intrinsic it knows that they must not.
        """
        self.intrinsic_effect(BARRIER, [self.const(0, i32)])

    def count_arrival(self, pointer: Value, lane: Value) -> Value:
        """Lane 0 adds 1 to an i32 of global memory; what was there before, in all lanes.

        What the warp wrote before `sync_warp` is seen by whoever finds it counted, and read then.
        """
        text = "atom.acq_rel.gpu.global.add.u32 $0, [$1], 1;"
        (before,) = self.choose(
            lane.eq(0),
            lambda: self.ptx(text, [i32], [pointer], effects=True),
            lambda: [self.const(0, i32)],
        )
        return self.from_lane(before, 0)

    def from_lane(self, value: Value, lane: int) -> Value:
        """An i32 of one lane of the warp, for all of them."""
        text = f"shfl.sync.idx.b32 $0, $1, {lane}, 31, -1;"
        return self.ptx(text, [i32], [value], effects=True)[0]

    # -- the end

    def finish(self, threads: int, blocks_per_sm: int = 1, alignment: int = 128) -> ModuleOp:
        """The module of the kernel, for blocks of so many threads; the builder is spent.

        alignment: of shared memory, in bytes.
        """
        self.emit_effect(llvm.ReturnOp, ())
        self.close_entry()
        limits = {"nvvm.maxntid": threads, "nvvm.minctasm": blocks_per_sm}
        pairs = [
            ArrayAttr([StringAttr(name), StringAttr(str(number))])
            for name, number in limits.items()
        ]
        properties: dict[str, Attribute] = {
            "sym_name": StringAttr(self.name),
            "function_type": llvm.LLVMFunctionType([a.type for a in self.entry.args]),
            "CConv": KernelConvention(),
            "linkage": llvm.LinkageAttr("external"),
            "visibility_": IntegerAttr(0, i64),
            "passthrough": ArrayAttr(pairs),
        }
        marks: dict[str, Attribute] = {}
        if any(one.type == TENSOR_MAP for one in self.entry.args):
            properties["arg_attrs"] = ArrayAttr([_argument(one.type) for one in self.entry.args])
            marks["nvvm.kernel"] = UnitAttr()
        regions = [Region(self.entry)]
        function = llvm.FuncOp.create(regions=regions, properties=properties, attributes=marks)
        memory = llvm.GlobalOp(
            llvm.LLVMArrayType(0, i8),
            SHARED_MEMORY,
            "external",
            addr_space=3,
            alignment=alignment,
        )
        return ModuleOp([memory, function])


def _argument(type_: Attribute) -> DictionaryAttr:
    """What is said of an argument: a tensor map lies in the parameters themselves."""
    if type_ != TENSOR_MAP:
        return DictionaryAttr({})
    attributes: dict[str, Attribute] = {
        "llvm.byval": llvm.LLVMArrayType(TENSOR_MAP_BYTES, i8),
        "llvm.align": IntegerAttr(64, i64),
        "nvvm.grid_constant": UnitAttr(),
    }
    return DictionaryAttr(attributes)


def _parameter_type(parameter: Parameter) -> Attribute:
    if parameter.boxes is not None:
        return TENSOR_MAP
    return ELEMENTS[parameter.dtype] if parameter.access == Access.VALUE else GLOBAL


def _aligned(type_: Attribute, alignment: int | None) -> dict[str, Attribute]:
    if alignment is None:
        alignment = _bytes(type_)
    return {"alignment": IntegerAttr(alignment, i64), "ordering": IntegerAttr(0, i64)}


def _bytes(type_: Attribute) -> int:
    if isinstance(type_, VectorType):
        return type_.get_shape()[0] * _bytes(type_.element_type)
    return 1 if type_ == i8 else _BYTES[str(type_)]
