"""A kernel that a GpuBuilder finished, as a file of CUDA C++.

The file says what the PTX says, from the same IR: loops and branches are loops and branches, and
instructions that only the machine has stay inline PTX. Whoever wants to read a kernel can; and
NVIDIA's own compiler makes another program of it, with which the PTX is compared.
"""

import re
from collections.abc import Sequence

from xdsl.dialects import llvm, scf
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr
from xdsl.ir import Block, Operation, SSAValue

from nybble.backends.gpu.builder import BARRIER, TENSOR_MAP
from nybble.backends.gpu.cuda.expressions import EXPRESSIONS
from nybble.backends.gpu.cuda.types import PRELUDE, SIGNED, as_signed, constant_type, cpp_type
from nybble.dialects.errors import InternalError

NVRTC_OPTIONS = ("--fmad=false",)
"""Products and sums are rounded apart, as the IR says, unless it says `fma`."""
LONGEST = 60
"""Characters of an expression that is written where it is used."""
_SIMPLE = re.compile(r"[\w.]+(\([^()]*\))?")
_WORD = re.compile(r"[A-Za-z_]\w*")


def cuda_source(module: ModuleOp, parameters: Sequence[str]) -> str:
    """The text of a module's kernel; parameters: the names of its arguments, in order.

    Compile it with NVRTC_OPTIONS.
    """
    (function,) = [one for one in module.ops if isinstance(one, llvm.FuncOp)]
    (memory,) = [one for one in module.ops if isinstance(one, llvm.GlobalOp)]
    return _Writer(parameters).file(function, memory)


class _Writer:
    """Writes one kernel, statement by statement."""

    def __init__(self, parameters: Sequence[str]):
        self.parameters = parameters
        self.lines: list[str] = []
        self.names: dict[SSAValue, str] = {}
        self.structs: dict[SSAValue, list[str]] = {}
        self.depth = 1
        self.count = 0

    def file(self, function: llvm.FuncOp, memory: llvm.GlobalOp) -> str:
        """The whole text."""
        (block,) = function.body.blocks
        arguments: list[str] = []
        for name, value in zip(self.parameters, block.args, strict=True):
            self.names[value] = f"&{name}" if value.type == TENSOR_MAP else name
            arguments.append(f"{cpp_type(value.type)} {name}")
        self.block(block)
        head = (
            f'extern "C" __global__ void __launch_bounds__({_limits(function)})\n'
            f"{function.sym_name.data}({', '.join(arguments)}) {{"
        )
        assert memory.alignment is not None
        aligned = f"__align__({memory.alignment.value.data})"
        declared = f"extern __shared__ {aligned} char shared_memory[];"
        return "\n".join([PRELUDE, declared, "", head, *self.lines, "}", ""])

    # -- statements

    def say(self, text: str) -> None:
        """One line."""
        self.lines.append("  " * self.depth + text)

    def block(self, block: Block) -> None:
        """All operations of a block but the terminator."""
        for op in block.ops:
            if not isinstance(op, scf.YieldOp | llvm.ReturnOp):
                self.operation(op)

    def operation(self, op: Operation) -> None:
        """One operation: a statement, or an expression that is kept for its use."""
        if isinstance(op, llvm.CallIntrinsicOp) and op.intrin.data == BARRIER:
            self.say("__syncthreads();")
        elif type(op) in EXPRESSIONS:
            self.expression(op)
        elif isinstance(op, llvm.InlineAsmOp):
            self.inline(op)
        elif isinstance(op, llvm.ExtractValueOp):
            index = op.position.get_values()[0]
            self.names[op.results[0]] = self.structs[op.operands[0]][index]
        elif isinstance(op, llvm.LoadOp):
            type_ = cpp_type(op.results[0].type)
            self.define(op.results[0], f"load<{type_}>({self.use(op.operands[0])})")
        elif isinstance(op, llvm.StoreOp):
            value, pointer = op.operands
            self.say(f"store<{cpp_type(value.type)}>({self.use(pointer)}, {self.use(value)});")
        elif isinstance(op, scf.ForOp):
            self.loop(op)
        elif isinstance(op, scf.IfOp):
            self.branch(op)
        else:
            raise InternalError(f"operation '{op.name}' in a kernel has no CUDA C++")

    def expression(self, op: Operation) -> None:
        """An expression, written where it is used if that is one place, and short."""
        result = op.results[0]
        text = EXPRESSIONS[type(op)](op, [self.use(one) for one in op.operands])
        uses = list(result.uses)
        if _SIMPLE.fullmatch(text):
            self.names[result] = text
        elif len(uses) == 1 and uses[0].operation.parent is op.parent and len(text) <= LONGEST:
            self.names[result] = f"({text})"
        elif uses:
            self.define(result, text)

    def define(self, value: SSAValue, text: str) -> None:
        """A variable of a value."""
        self.names[value] = self.fresh()
        self.say(f"{constant_type(value.type)} {self.names[value]} = {text};")

    def declare(self, value: SSAValue, start: str = "") -> str:
        """A variable that is assigned later; its name."""
        self.names[value] = self.fresh()
        self.say(f"{cpp_type(value.type)} {self.names[value]}{start and f' = {start}'};")
        return self.names[value]

    def fresh(self) -> str:
        """A name that is not used yet."""
        self.count += 1
        return f"v{self.count}"

    def use(self, value: SSAValue) -> str:
        """A value, as an operand."""
        return self.names[value]

    # -- the machine's own

    def inline(self, op: llvm.InlineAsmOp) -> None:
        """Inline PTX; its results are variables, the first of which may have values before."""
        constraints = op.constraints.data.split(",")
        outs = [one for one in constraints if one.startswith("=")]
        tied = sum(one.isdecimal() for one in constraints)
        ins = [one for one in constraints if one[0] not in "=~" and not one.isdecimal()]
        results = self.results(op, outs)
        for name, value in zip(results, op.operands[:tied], strict=False):
            self.say(f"{name} = {self.use(value)};")
        outs = [one.replace("=", "+") if i < tied else one for i, one in enumerate(outs)]
        written = [f'"{one}"({name})' for one, name in zip(outs, results, strict=True)]
        pairs = zip(ins, op.operands[tied:], strict=True)
        read = [f'"{one}"({self.use(value)})' for one, value in pairs]

        def numbered(found: re.Match[str]) -> str:
            number = int(found[1])
            return f"%{number if number < len(outs) else number - tied}"

        text = re.sub(r"\$(\d+)", numbered, op.asm_string.data.replace("%", "%%"))
        effects = "volatile" if op.has_side_effects is not None else ""
        clobbers = ' : "memory"' if effects else ""
        self.say(f'asm {effects}("{text}" : {", ".join(written)} : {", ".join(read)}{clobbers});')

    def results(self, op: llvm.InlineAsmOp, outs: Sequence[str]) -> list[str]:
        """Variables for the results of inline PTX."""
        if not op.results:
            return []
        (result,) = op.results
        if not isinstance(result.type, llvm.LLVMStructType):
            return [self.declare(result)]
        names = [self.fresh() for _ in outs]
        for name, type_ in zip(names, result.type.types.data, strict=True):
            self.say(f"{cpp_type(type_)} {name};")
        self.structs[result] = names
        return names

    # -- control

    def loop(self, op: scf.ForOp) -> None:
        """A loop; what it carries are variables before it."""
        body = op.body.block
        low, high, step, *inits = [self.use(one) for one in op.operands]
        carried = [
            self.declare(argument, init)
            for argument, init in zip(body.args[1:], inits, strict=True)
        ]
        for result, name in zip(op.results, carried, strict=True):
            self.names[result] = name
        type_, counter = body.args[0].type, self.fresh()
        self.names[body.args[0]] = f"(({cpp_type(type_)}){counter})"
        low, high, step = (as_signed(one, type_) for one in (low, high, step))
        start = f"{SIGNED[str(type_)]} {counter} = {low}"
        self.say(f"for ({start}; {counter} < {high}; {counter} += {step}) {{")
        self.nested(body, carried)
        self.say("}")

    def branch(self, op: scf.IfOp) -> None:
        """A branch; what it gives are variables before it."""
        names = [self.declare(result) for result in op.results]
        self.say(f"if ({self.use(op.operands[0])}) {{")
        self.nested(op.true_region.block, names)
        if op.false_region.blocks:
            self.say("} else {")
            self.nested(op.false_region.block, names)
        self.say("}")

    def nested(self, block: Block, names: Sequence[str]) -> None:
        """A block, whose yielded values become those of variables, all at once."""
        self.depth += 1
        self.block(block)
        last = block.last_op
        assert last is not None
        pairs = list(zip(names, last.operands, strict=True))
        changed: set[str] = set()
        given: list[tuple[str, str]] = []
        for name, value in pairs:
            text = self.use(value)
            if changed & set(_WORD.findall(text)):
                text = self.fresh()
            given.append((name, text))
            changed.add(name)
        for (_, text), (_, value) in zip(given, pairs, strict=True):
            if text != self.use(value):
                self.say(f"{constant_type(value.type)} {text} = {self.use(value)};")
        for name, text in given:
            if name != text:
                self.say(f"{name} = {text};")
        self.depth -= 1


def _limits(function: llvm.FuncOp) -> str:
    """Threads of a block, and blocks of a multiprocessor."""
    found: dict[str, str] = {}
    assert isinstance(function.passthrough, ArrayAttr)
    for pair in function.passthrough.data:
        assert isinstance(pair, ArrayAttr)
        name, number = (one.data for one in pair.data if isinstance(one, StringAttr))
        found[name] = number
    return f"{found['nvvm.maxntid']}, {found['nvvm.minctasm']}"
